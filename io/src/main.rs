//! The binary `skirmish`.

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    skirmish_io::cli::run(std::env::args_os(), signals::told_to_stop)
}

/// The simulator uses the library; there is no command line in it.
#[cfg(madsim)]
fn main() {}

#[cfg(not(madsim))]
mod signals {
    /// Ready at the first signal to stop. The second ends the process.
    pub(super) async fn told_to_stop() {
        // Listened for from the start, so that a second one right behind is not lost.
        let mut signals = Signals::listen();
        signals.next().await;
        tokio::spawn(async move {
            signals.next().await;
            tracing::warn!("second signal, stopping at once");
            skirmish_io::cli::flush_log();
            std::process::exit(1);
        });
    }

    /// SIGTERM and SIGINT. `None` where there is no signal driver; then none can be
    /// waited for.
    #[cfg(unix)]
    struct Signals(Option<(tokio::signal::unix::Signal, tokio::signal::unix::Signal)>);

    #[cfg(unix)]
    impl Signals {
        fn listen() -> Self {
            use tokio::signal::unix::{SignalKind, signal};
            Self(signal(SignalKind::terminate()).ok().zip(signal(SignalKind::interrupt()).ok()))
        }

        async fn next(&mut self) {
            let Some((terminate, interrupt)) = &mut self.0 else { return std::future::pending().await };
            tokio::select! {
                biased;
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
    }

    /// Ctrl-C.
    #[cfg(not(unix))]
    struct Signals;

    #[cfg(not(unix))]
    impl Signals {
        const fn listen() -> Self {
            Self
        }

        async fn next(&mut self) {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending().await
            }
        }
    }
}
