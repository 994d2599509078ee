//! Watches lose and repeat no change when connections break.

use std::collections::BTreeMap;

use skirmish_core::registry::{
    Change, News, Put, RegistryCommand, RegistryOp, Request, Span, Txn, Watch, WatchId,
};
use skirmish_tests::etcd::{Etcd, Version};
use skirmish_tests::eventually;
use skirmish_tests::pipe::Pipe;

use crate::asker::{Asker, options};

/// Writes a new key until the write is acknowledged. A second write of the key is a second change.
async fn write(asker: &mut Asker, key: String) {
    eventually("a write", async || {
        let put = Request::Put(Put::new(key.clone(), "", None));
        asker.done(put).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_watch_survives_restarts_of_etcd_without_a_lost_or_doubled_change() {
    let mut etcd = Etcd::start_with(Version::durable(), &[]).await;
    let mut watcher = Asker::new(&options(vec![etcd.url()]));
    let mut writer = Asker::new(&options(vec![etcd.url()]));
    watcher.watch(1, Watch::of(Span::prefix("n/"), 0));
    assert_eq!(watcher.news().await.news, News::Created);
    for round in 0..4 {
        for i in 0..25 {
            write(&mut writer, format!("n/{round}/{i}")).await;
        }
        // The watcher may be at any revision in between.
        etcd.restart().await;
    }
    write(&mut writer, "n/last".to_owned()).await;
    let (_, kvs) = writer.list("n/").await;
    assert_eq!(kvs.len(), 101);

    let mut seen = BTreeMap::new();
    let mut last = 0;
    while !seen.contains_key(&b"n/last"[..]) {
        let watched = watcher.news().await;
        match watched.news {
            News::Changes(changes) => {
                for change in changes {
                    assert!(change.revision() > last, "{change:?} after {last}");
                    last = change.revision();
                    *seen.entry(change.key().to_vec()).or_insert(0) += 1;
                }
                assert_eq!(watched.revision, last);
            }
            News::Progress => last = watched.revision,
            other => panic!("{other:?}"),
        }
    }
    // A write with an unknown outcome may have been executed twice; then both changes are reported.
    for kv in kvs {
        assert_eq!(seen.get(&kv.key[..]).copied(), Some(kv.version), "{kv:?}");
    }
    assert!(watcher.registry.counters().connections > 1);
}

#[tokio::test]
async fn a_watch_that_compaction_has_overtaken_says_so_and_the_keys_are_listed_afresh() {
    let etcd = Etcd::start().await;
    let pipe = Pipe::start(etcd.address()).await;
    let mut watcher = Asker::new(&options(vec![pipe.url()]));
    let mut writer = Asker::new(&options(vec![etcd.url()]));
    watcher.watch(1, Watch::of(Span::prefix("n/"), 0));
    assert_eq!(watcher.news().await.news, News::Created);
    write(&mut writer, "n/before".to_owned()).await;
    assert_eq!(watcher.changes().await.len(), 1);

    pipe.cut();
    for i in 0..10 {
        write(&mut writer, format!("n/{i}")).await;
    }
    let (revision, _) = writer.list("n/").await;
    writer.done(Request::Compact { revision }).await.unwrap();
    pipe.open();
    let watched = watcher.news().await;
    assert_eq!(watched.news, News::Compacted { oldest: revision });

    let (listed, kvs) = watcher.list("n/").await;
    assert_eq!((listed, kvs.len()), (revision, 11));
    watcher.watch(1, Watch::of(Span::prefix("n/"), listed + 1));
    write(&mut writer, "n/after".to_owned()).await;
    let changes = watcher.changes().await;
    assert_eq!(changes.iter().map(|change| &change.key()[..]).collect::<Vec<_>>(), [b"n/after"]);
}

#[tokio::test]
async fn the_changes_of_a_large_revision_come_together() {
    const KEYS: usize = 70;
    let etcd = Etcd::start().await;
    let mut asker = Asker::new(&options(vec![etcd.url()]));
    asker.watch(1, Watch { prev: true, ..Watch::of(Span::prefix("large/"), 0) });
    assert_eq!(asker.news().await.news, News::Created);
    // Together with the earlier values, this is more than one message of etcd.
    for round in 0..3u8 {
        let put = |i| RegistryOp::Put(Put::new(format!("large/{i:02}"), vec![round; 20_000], None));
        let txn = Txn { success: (0..KEYS).map(put).collect(), ..Txn::default() };
        asker.done(Request::Txn(txn)).await.unwrap();
    }
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 3 * KEYS {
        let changes = asker.changes().await;
        assert_eq!(changes.len() % KEYS, 0, "a revision was parted");
        for change in &changes {
            let Change::Put { kv, prev } = change else { panic!("{change:?}") };
            assert_eq!(prev.as_ref().map(|prev| prev.modified + 1), (kv.version > 1).then_some(kv.modified));
        }
        sizes.push(changes.len());
    }
}

#[tokio::test]
async fn filters_ends_and_refusals_are_as_asked() {
    let etcd = Etcd::start().await;
    let mut asker = Asker::new(&options(vec![etcd.url()]));
    let span = || Span::prefix("n/");
    asker.watch(1, Watch { no_put: true, ..Watch::of(span(), 0) });
    asker.watch(2, Watch { no_delete: true, ..Watch::of(span(), 0) });
    asker.watch(3, Watch::of(span(), 0));
    let mut running = 0;
    while running < 3 {
        running += usize::from(asker.news().await.news == News::Created);
    }
    asker.call(RegistryCommand::Unwatch(WatchId(3)));
    write(&mut asker, "n/a".to_owned()).await;
    asker.done(Request::Delete(skirmish_core::registry::Delete::of(span()))).await.unwrap();
    write(&mut asker, "n/b".to_owned()).await;
    let mut told = BTreeMap::new();
    while told.len() < 2 || told.values().map(Vec::len).sum::<usize>() < 3 {
        let watched = asker.news().await;
        if let News::Changes(changes) = watched.news {
            let is_put = |change: &Change| matches!(change, Change::Put { .. });
            told.entry(watched.id.0).or_insert_with(Vec::new).extend(changes.iter().map(is_put));
        }
    }
    assert_eq!(told, BTreeMap::from([(1, vec![false]), (2, vec![true, true])]));

    // A watch of no key.
    asker.watch(4, Watch::of(Span { key: "b".into(), end: "a".into() }, 0));
    let watched = asker.news().await;
    assert_eq!((watched.id, watched.news), (WatchId(4), News::Canceled));
    // A watch from the past, with an identifier that was used before.
    asker.watch(1, Watch::of(span(), 2));
    assert_eq!(asker.news().await.news, News::Created);
    assert_eq!(asker.changes().await.len(), 3);
}
