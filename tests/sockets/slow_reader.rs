//! A member that stops reading needs constant memory, delays nobody, and gets a snapshot that names the
//! missing entries (G5, G11).

use skirmish_core::wire::ToClient;
use skirmish_tests::http::metric;
use skirmish_tests::process::Process;
use skirmish_tests::socket::Socket;

/// Size of a message, in bytes.
const BODY: usize = 8 * 1024;
/// Messages sent at once.
const BATCH: u64 = 16;
/// Batches before the server has touched all memory for this number of members.
const WARM: u64 = 32;
/// Number of batches: 24 MiB of messages, more than a system buffers for one socket.
const BATCHES: u64 = 192;
/// Allowed growth of the server's memory after the warm-up: a sixth of the messages sent in that time.
const GROWTH: u64 = 3 << 20;

#[tokio::test]
async fn a_member_that_stops_reading_costs_constant_memory_and_delays_nobody() {
    let server = Process::start(&[
        "rates.reliable={ per_second = 1000000, burst = 1000000 }",
        "rates.bytes={ per_second = 1000000000, burst = 1000000000 }",
        // Without this, a slow computer's server would close the silent member.
        "heartbeat.interval=\"1h\"",
        "rooms.tombstone_horizon=\"24h\"",
        "rooms.window_bytes=262144",
        "log.level=\"info\"",
    ])
    .await;
    let mut stalled = Socket::connect_narrow(server.address, "stalled").await;
    stalled.hello(None).await;
    let joined = stalled.join("arena").await;
    let mut talker = Socket::open(server.address, "talker").await;
    talker.join("arena").await;
    let mut reader = Socket::open(server.address, "reader").await;
    reader.join("arena").await;

    // Each batch is sent after the arrival of the one before, so that the reading members keep up without
    // luck. If they had to wait for the stalled member, the loop would never end.
    let mut warm = None;
    let mut last = 0;
    for batch in 0..BATCHES {
        for client_seq in batch * BATCH + 1..=(batch + 1) * BATCH {
            talker.say("arena", client_seq, vec![b'x'; BODY]).await;
        }
        for client_seq in batch * BATCH + 1..=(batch + 1) * BATCH {
            for member in [&mut talker, &mut reader] {
                let entry = member.said().await;
                assert_eq!((entry.client_seq, entry.body.len()), (client_seq, BODY));
                last = entry.seq;
            }
        }
        if batch == WARM {
            warm = metric(server.admin, "skirmish_resident_memory_bytes").await;
        }
    }
    assert_eq!(metric(server.admin, "skirmish_snapshots_total").await, Some(0), "nobody else fell behind");
    let full = metric(server.admin, "skirmish_resident_memory_bytes").await;
    // Not every system reports memory.
    if let (Some(warm), Some(full)) = (warm, full) {
        assert!(full <= warm + GROWTH, "the server's memory grew from {warm} to {full} bytes");
    }

    // Now the member reads: entry after entry, and a snapshot for each gap.
    let mut cursor = joined.seq;
    let mut missing = 0;
    while cursor < last {
        match stalled.next().await {
            ToClient::Entry(entry) => {
                assert_eq!(entry.seq, cursor + 1, "a gap that was not announced");
                cursor = entry.seq;
            }
            ToClient::Snapshot(snapshot) if snapshot.missing_from != 0 => {
                assert_eq!(snapshot.missing_from, cursor + 1, "a gap that was not announced");
                missing += snapshot.seq - cursor;
                cursor = snapshot.seq;
                assert_eq!(snapshot.members.len(), 3);
            }
            ToClient::Snapshot(snapshot) => cursor = snapshot.seq,
            _ => {}
        }
    }
    assert!(missing > BATCHES * BATCH / 4, "only {missing} entries are missing: the reader never stalled");
    // It is a normal member again.
    talker.say("arena", BATCHES * BATCH + 1, "welcome back").await;
    assert_eq!(stalled.said().await.body, "welcome back");
}
