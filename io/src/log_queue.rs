//! A log that never blocks its callers: a queue of lines, bounded in bytes, and a thread that
//! writes the lines.
//!
//! A line that finds the queue full is dropped and counted. Then lines are dropped until half of
//! the queue is written, and one line with their number is written in their place. A sink that
//! fails is retried for as long as the process lives, so the log goes on once a full disk has space
//! again, or a pipe has a reader.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use skirmish_core::time::{Duration, Instant};

use crate::clock::Clock;

/// Memory of a line in the queue besides its bytes.
const LINE_OVERHEAD: usize = 64;
/// Time from a failed write to the next attempt.
const RETRY: Duration = Duration::from_millis(200);
/// Time after which a failing or hanging write counts as trouble, even if no line is dropped yet.
const STUCK: Duration = Duration::from_secs(3);

/// Makes the line that replaces dropped lines, from their number and the last error of the sink, if
/// any.
pub type DropNotice = fn(dropped: u64, error: Option<&str>) -> String;

/// The queue. Cheap to clone; clones are the same queue.
#[derive(Clone)]
pub struct LogQueue(Arc<SharedLines>);

struct SharedLines {
    queue: Mutex<WaitingLines>,
    /// Notified when there is a line to write.
    filled: Condvar,
    /// Notified when every line is written.
    empty: Condvar,
    notice: DropNotice,
    clock: Clock,
}

/// The reason for which log lines are lost, or will be soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTrouble {
    /// Lines dropped in the current period of losses; 0 if the queue still has space.
    pub dropped: u64,
    /// Last error of the sink; `None` if the sink hangs without an error.
    pub error: Option<String>,
}

impl fmt::Display for LogTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "the log cannot be written: {error}")?,
            None => f.write_str("the log is read too slowly or not at all")?,
        }
        match self.dropped {
            0 => Ok(()),
            dropped => write!(f, "; {dropped} lines are lost so far"),
        }
    }
}

impl fmt::Debug for LogQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogQueue").field(&*self.0.lock()).finish()
    }
}

impl LogQueue {
    /// Starts a queue of `capacity` bytes, including the overhead of its lines, with a thread that
    /// writes to `sink`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(capacity: usize, sink: impl Write + Send + 'static, notice: DropNotice) -> io::Result<Self> {
        let shared = Arc::new(SharedLines {
            queue: Mutex::new(WaitingLines::new(capacity)),
            filled: Condvar::new(),
            empty: Condvar::new(),
            notice,
            clock: Clock::new(),
        });
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_to(sink))?;
        Ok(Self(shared))
    }

    /// Queues a line, which must end with a line break, or drops and counts the line. Never waits
    /// for the sink.
    pub fn push(&self, line: Vec<u8>) {
        self.0.lock().push(line);
        self.0.filled.notify_one();
    }

    /// Waits until every line is written, for at most `most`. Returns true if every line is.
    pub fn flush(&self, most: Duration) -> bool {
        let unwritten = |queue: &mut WaitingLines| !queue.is_written();
        let waited = self.0.empty.wait_timeout_while(self.0.lock(), most, unwritten);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_written()
    }

    /// Returns the number of lines dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.lock().dropped
    }

    /// Returns the reason for lost lines, if there are any.
    #[must_use]
    pub fn trouble(&self) -> Option<LogTrouble> {
        self.0.lock().trouble(self.0.clock.now().instant)
    }
}

impl SharedLines {
    fn lock(&self) -> MutexGuard<'_, WaitingLines> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes line after line, for as long as the process lives.
    fn write_to(&self, mut sink: impl Write) {
        loop {
            let nothing = |queue: &mut WaitingLines| queue.lines.is_empty();
            let waited = self.filled.wait_while(self.lock(), nothing);
            let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
            let Some(line) = queue.take(self.clock.now().instant) else { continue };
            drop(queue);
            self.write_line(&line, &mut sink);
            let mut queue = self.lock();
            if let Some((dropped, error)) = queue.written(line.len()) {
                queue.push((self.notice)(dropped, error.as_deref()).into_bytes());
            }
            if queue.is_written() {
                self.empty.notify_all();
            }
        }
    }

    /// Writes one line, with as many attempts as needed.
    fn write_line(&self, line: &[u8], sink: &mut impl Write) {
        let mut rest = line;
        while !rest.is_empty() {
            let error = match sink.write(rest) {
                Ok(0) => ErrorKind::WriteZero.into(),
                Ok(taken) => {
                    rest = rest.get(taken..).unwrap_or_default();
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            self.lock().error = Some(error.to_string());
            thread::sleep(RETRY);
        }
    }
}

/// The waiting lines, and the counters of the dropped ones.
#[derive(Debug)]
struct WaitingLines {
    lines: VecDeque<Vec<u8>>,
    /// Bytes of the waiting lines and of the line that is being written, with overhead.
    bytes: usize,
    capacity: usize,
    /// Time since which the current line is being written.
    writing: Option<Instant>,
    /// Last error of the current line.
    error: Option<String>,
    /// Last error since the losses began.
    cause: Option<String>,
    /// True while lines are dropped, until half of the queue is free.
    losing: bool,
    /// Lines dropped since the losses began.
    missing: u64,
    /// Lines dropped in all.
    dropped: u64,
}

impl WaitingLines {
    const fn new(capacity: usize) -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            capacity,
            writing: None,
            error: None,
            cause: None,
            losing: false,
            missing: 0,
            dropped: 0,
        }
    }

    fn push(&mut self, line: Vec<u8>) {
        let bytes = self.bytes.saturating_add(line.len()).saturating_add(LINE_OVERHEAD);
        if self.losing || bytes > self.capacity {
            self.losing = true;
            self.missing += 1;
            self.dropped += 1;
            return;
        }
        self.bytes = bytes;
        self.lines.push_back(line);
    }

    /// Removes the next line to write. The line counts until [`Self::written`].
    fn take(&mut self, now: Instant) -> Option<Vec<u8>> {
        let line = self.lines.pop_front()?;
        self.writing = Some(now);
        Some(line)
    }

    /// Notes that a line of this length is written. If this ends a period of losses: returns the
    /// number of dropped lines, and the last error of the sink.
    fn written(&mut self, length: usize) -> Option<(u64, Option<String>)> {
        self.bytes = self.bytes.saturating_sub(length + LINE_OVERHEAD);
        self.writing = None;
        let error = self.error.take();
        self.cause = error.or_else(|| self.cause.take());
        if !self.losing {
            self.cause = None;
            return None;
        }
        if self.bytes > self.capacity / 2 {
            return None;
        }
        self.losing = false;
        Some((std::mem::take(&mut self.missing), self.cause.take()))
    }

    fn is_written(&self) -> bool {
        self.lines.is_empty() && self.writing.is_none()
    }

    fn trouble(&self, now: Instant) -> Option<LogTrouble> {
        let stuck = self.writing.is_some_and(|since| now.since(since) >= STUCK);
        let error = self.error.as_ref().or(self.cause.as_ref()).cloned();
        (self.losing || stuck).then_some(LogTrouble { dropped: self.missing, error })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn line(number: usize) -> Vec<u8> {
        format!("line {number:02}\n").into_bytes()
    }

    /// Bytes of a line in the queue.
    const LINE: usize = 8 + LINE_OVERHEAD;

    fn notice(dropped: u64, error: Option<&str>) -> String {
        format!("{dropped} lost: {}\n", error.unwrap_or("no error"))
    }

    #[test]
    fn a_full_queue_drops_until_half_of_it_is_free_and_says_how_many() {
        let mut queue = WaitingLines::new(4 * LINE);
        (0..4).for_each(|number| queue.push(line(number)));
        assert_eq!((queue.lines.len(), queue.dropped, queue.trouble(at(0))), (4, 0, None));
        (4..6).for_each(|number| queue.push(line(number)));
        assert_eq!(queue.trouble(at(0)), Some(LogTrouble { dropped: 2, error: None }));
        assert_eq!(queue.take(at(0)), Some(line(0)));
        assert_eq!(queue.written(8), None, "three quarters are still full");
        queue.push(line(6));
        assert_eq!((queue.lines.len(), queue.dropped), (3, 3), "though there is room for it");
        assert_eq!(queue.take(at(0)), Some(line(1)));
        assert_eq!(queue.written(8), Some((3, None)));
        assert_eq!(queue.trouble(at(0)), None);
        queue.push(line(7));
        assert_eq!((queue.lines.len(), queue.dropped, queue.missing), (3, 3, 0));
    }

    #[test]
    fn what_is_being_written_counts_as_queued() {
        let mut queue = WaitingLines::new(2 * LINE);
        queue.push(line(0));
        assert!(queue.take(at(0)).is_some() && !queue.is_written());
        queue.push(line(1));
        queue.push(line(2));
        assert_eq!((queue.lines.len(), queue.dropped), (1, 1));
    }

    #[test]
    fn a_line_that_is_too_long_for_the_queue_is_dropped_and_told() {
        let mut queue = WaitingLines::new(2 * LINE);
        queue.push(vec![b'a'; 2 * LINE]);
        assert_eq!(queue.dropped, 1);
        assert_eq!(queue.trouble(at(0)).map(|trouble| trouble.dropped), Some(1));
    }

    #[test]
    fn a_write_that_hangs_is_trouble_before_anything_is_lost() {
        let mut queue = WaitingLines::new(100 * LINE);
        queue.push(line(0));
        queue.push(line(1));
        assert!(queue.take(at(0)).is_some());
        queue.error = Some("no space".to_owned());
        assert_eq!(queue.trouble(at(2_999)), None);
        let trouble = queue.trouble(at(3_000)).expect("it hangs");
        assert_eq!(trouble.to_string(), "the log cannot be written: no space");
        assert_eq!(queue.written(8), None, "nothing is lost");
        assert_eq!(queue.trouble(at(4_000)), None);
    }

    /// A sink that fails until it is told to work, then keeps its input, a few bytes at a time.
    struct Disk {
        full: mpsc::Receiver<()>,
        works: bool,
        text: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Disk {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.works |= self.full.try_recv().is_ok();
            if !self.works {
                return Err(ErrorKind::StorageFull.into());
            }
            let taken = buf.len().min(3);
            self.text.lock().unwrap().extend_from_slice(&buf[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_log_goes_on_when_a_full_disk_has_room_again() {
        let (room, full) = mpsc::channel();
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let disk = Disk { full, works: false, text: Arc::clone(&text) };
        let queue = LogQueue::start(4 * LINE, disk, notice).unwrap();
        (0..10).for_each(|number| queue.push(line(number)));
        assert!(!queue.flush(Duration::from_millis(1)), "the disk is full");
        assert_eq!(queue.dropped(), 6);
        let tried = || queue.trouble().is_some_and(|trouble| trouble.error.is_some());
        assert!(
            (0..LONG.as_millis()).any(|_| tried() || queue.flush(Duration::from_millis(1))),
            "never tried"
        );
        room.send(()).unwrap();
        assert!(queue.flush(LONG));
        queue.push(line(10));
        assert!(queue.flush(LONG));
        let text = String::from_utf8(text.lock().unwrap().clone()).unwrap();
        let full = io::Error::from(ErrorKind::StorageFull);
        let expected = format!("line 00\nline 01\nline 02\nline 03\n6 lost: {full}\nline 10\n");
        assert_eq!(text, expected);
        assert_eq!(queue.trouble(), None);
    }

    /// A sink that accepts nothing, without an error.
    struct Unread(mpsc::Receiver<()>);

    impl Write for Unread {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            // Ends with the test.
            let _ = self.0.recv();
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_waits_for_a_sink_that_hangs() {
        let (_open, hang) = mpsc::channel();
        let queue = LogQueue::start(4 * LINE, Unread(hang), notice).unwrap();
        (0..1_000).for_each(|number| queue.push(line(number % 100)));
        assert!(queue.dropped() >= 995);
        assert!(!queue.flush(Duration::from_millis(1)));
        assert!(
            queue.trouble().unwrap().to_string().starts_with("the log is read too slowly or not at all; ")
        );
    }
}
