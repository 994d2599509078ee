//! Comparison of the index and the log of changes with plain models.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use proptest::prelude::*;
use skirmish_proto::v1;

use crate::crdt::KeyBuf;
use crate::crdt::changes::ChangeLog;
use crate::crdt::index::{Index, Slot};
use crate::crdt::merkle::{bucket, key_hash};

fn key(n: u8) -> KeyBuf {
    KeyBuf::property(&format!("player{}", n % 3), &format!("name{n}")).expect("a short name")
}

proptest! {
    /// Every look-up finds an entry until the entry is removed, and not after that.
    #[test]
    fn an_entry_is_found_by_key_by_owner_and_by_bucket(
        steps in proptest::collection::vec((any::<bool>(), 0..24_u8), 0..120),
    ) {
        let mut index = Index::new([3; 32]);
        let mut model = BTreeMap::new();
        let mut gone = Vec::new();
        for (add, n) in steps {
            let known = index.find(&key(n));
            prop_assert_eq!(known, model.get(key(n).as_bytes()).copied());
            match known {
                None if add => {
                    model.insert(key(n).as_bytes().to_vec(), index.insert(&key(n)).unwrap());
                }
                Some(slot) if !add => {
                    let meta = index.remove(slot).unwrap();
                    prop_assert!(meta.key.as_bytes() == key(n).as_bytes());
                    model.remove(key(n).as_bytes());
                    gone.push(slot);
                }
                _ => {}
            }
        }
        prop_assert_eq!(index.len(), model.len());
        prop_assert!(gone.iter().all(|slot| index.get(*slot).is_none()));
        for owner in ["player0", "player1", "player2", "player"] {
            let prefix = KeyBuf::owner(v1::Domain::Property, owner).unwrap();
            let found = index.starting_with(prefix).map(|(key, slot)| (key.as_bytes().to_vec(), slot));
            let expected = model.iter().filter(|(key, _)| key.starts_with(prefix.as_bytes()));
            prop_assert!(found.eq(expected.map(|(key, slot)| (key.clone(), *slot))));
        }
        for leaf in 0..=u8::MAX {
            let mut found: Vec<_> = index.in_bucket(leaf).collect();
            found.sort();
            let mut expected: Vec<_> =
                model.iter().filter(|(key, _)| bucket(key_hash(key)) == leaf).map(|(_, slot)| *slot).collect();
            expected.sort();
            prop_assert_eq!(found, expected);
        }
    }

    /// The log keeps the last change of each entry, also after stale lines were removed, and is not
    /// much longer than the number of entries.
    #[test]
    fn the_log_has_the_last_change_of_each_entry(
        slots in proptest::collection::vec(0..8_u32, 0..300),
        after in 0..300_u64,
    ) {
        let mut log = ChangeLog::default();
        let mut last = BTreeMap::new();
        for slot in slots {
            let slot = Slot { slot, generation: 0 };
            last.insert(slot, log.append(slot));
            log.tidy(last.len(), |change, slot| last.get(&slot) == Some(&change));
            prop_assert!(log.since(0).count() <= last.len() + last.len() / 2 + 8);
        }
        let newest: Vec<_> = log.since(after).filter(|(change, slot)| last.get(slot) == Some(change)).collect();
        let mut expected: Vec<_> =
            last.iter().map(|(slot, change)| (*change, *slot)).filter(|(change, _)| *change > after).collect();
        expected.sort();
        prop_assert_eq!(newest, expected);
    }
}
