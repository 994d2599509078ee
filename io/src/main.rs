//! The binary `skirmish`.

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    skirmish_io::cli::run(std::env::args_os(), signals::stop, signals::SignalInterrupts::listen)
}

/// The simulator uses the library and has no command line.
#[cfg(madsim)]
fn main() {}

#[cfg(not(madsim))]
mod signals {
    use std::future::Future;

    /// Listens for signals from now on, including those that a server ignores. The future is ready
    /// at the first signal that stops a server; the second one ends the process. To be called in a
    /// runtime.
    pub(super) fn stop() -> impl Future<Output = ()> {
        // Listens from the start, so that a second signal right after the first is not lost.
        let mut stops = Stops::listen();
        ignore();
        async move {
            stops.next().await;
            tokio::spawn(async move {
                stops.next().await;
                tracing::warn!("second signal, stopping at once");
                skirmish_io::cli::flush_log();
                std::process::exit(1);
            });
        }
    }

    /// Interruptions of bots: Ctrl-C, and the end of their terminal.
    pub(super) struct SignalInterrupts(imp::Signals);

    impl SignalInterrupts {
        /// Listens from now on. To be called in a runtime.
        pub(super) fn listen() -> Self {
            Self(imp::interrupts())
        }
    }

    impl skirmish_io::bots::Interrupts for SignalInterrupts {
        async fn next(&mut self) {
            self.0.next().await;
        }
    }

    struct Stops(imp::Signals);

    impl Stops {
        fn listen() -> Self {
            Self(imp::stops())
        }

        async fn next(&mut self) {
            self.0.next().await;
        }
    }

    fn ignore() {
        imp::ignore();
    }

    #[cfg(unix)]
    mod imp {
        use std::future::poll_fn;
        use std::task::Poll;

        use rustix::process::Signal as Raw;
        use tokio::signal::unix::{Signal, SignalKind, signal};
        use tracing::{info, warn};

        /// Signals whose default is to end the process, and that a server does not use. Operators
        /// and their tools send them (log rotation, closing terminals, timers and profilers). The
        /// system sends SIGXFSZ at the limit of a file's size, which is also an error of the write.
        /// The runtime of Rust ignores SIGPIPE.
        const IGNORED: [(&str, Raw); 9] = [
            ("SIGHUP", Raw::HUP),
            ("SIGUSR1", Raw::USR1),
            ("SIGUSR2", Raw::USR2),
            ("SIGALRM", Raw::ALARM),
            ("SIGVTALRM", Raw::VTALARM),
            ("SIGPROF", Raw::PROF),
            ("SIGIO", Raw::IO),
            ("SIGPWR", Raw::POWER),
            ("SIGXFSZ", Raw::XFSZ),
        ];

        /// Any of several signals. If none can be received, waits forever; then the signals have
        /// their default effect.
        pub(super) struct Signals(Vec<Signal>);

        impl Signals {
            pub(super) async fn next(&mut self) {
                poll_fn(|cx| {
                    match self
                        .0
                        .iter_mut()
                        .any(|signal| matches!(signal.poll_recv(cx), Poll::Ready(Some(()))))
                    {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    }
                })
                .await;
            }
        }

        fn listen(signals: &[Raw]) -> Signals {
            let kinds = signals.iter().map(|raw| SignalKind::from_raw(raw.as_raw()));
            Signals(kinds.filter_map(|kind| signal(kind).ok()).collect())
        }

        pub(super) fn stops() -> Signals {
            listen(&[Raw::TERM, Raw::INT])
        }

        pub(super) fn interrupts() -> Signals {
            match is_ignored(Raw::HUP) {
                // `nohup`
                true => listen(&[Raw::INT]),
                false => listen(&[Raw::INT, Raw::HUP]),
            }
        }

        /// Replaces the defaults of the signals that a server ignores.
        pub(super) fn ignore() {
            for (name, raw) in IGNORED {
                match signal(SignalKind::from_raw(raw.as_raw())) {
                    Ok(mut signal) => {
                        tokio::spawn(async move {
                            while signal.recv().await.is_some() {
                                info!(
                                    signal = name,
                                    "signal ignored: a restart reads the configuration anew"
                                );
                            }
                        });
                    }
                    Err(error) => {
                        warn!(signal = name, %error, "this signal cannot be caught and may end the server")
                    }
                }
            }
        }

        /// Returns true if the process was started with this signal ignored.
        fn is_ignored(signal: Raw) -> bool {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
            let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
            mask >> (signal.as_raw() - 1) & 1 == 1
        }
    }

    #[cfg(not(unix))]
    mod imp {
        /// Ctrl-C.
        pub(super) struct Signals;

        impl Signals {
            pub(super) async fn next(&mut self) {
                if tokio::signal::ctrl_c().await.is_err() {
                    std::future::pending().await
                }
            }
        }

        pub(super) const fn stops() -> Signals {
            Signals
        }

        pub(super) const fn interrupts() -> Signals {
            Signals
        }

        pub(super) const fn ignore() {}
    }
}
