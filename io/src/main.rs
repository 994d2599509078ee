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
        signal().await;
        tokio::spawn(async {
            signal().await;
            tracing::warn!("second signal, stopping at once");
            std::process::exit(1);
        });
    }

    /// SIGTERM or SIGINT.
    #[cfg(unix)]
    async fn signal() {
        use tokio::signal::unix::{SignalKind, signal};
        // It fails only where there is no signal driver; then none can be waited for.
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return std::future::pending().await;
        };
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    async fn signal() {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
