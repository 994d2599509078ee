//! The key of a development server, and what can be queued for there.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Failure;
use crate::config::{Algorithm, Config, Queue, Rate, TokenKey};
use crate::token::new_secret;

/// Kept in the working directory, so that `skirmish token --dev` finds it and tokens
/// outlive a restart.
const DIRECTORY: &str = ".skirmish";

/// Adds the development key to the configuration, and makes it if it is not there; and
/// queues, if there are none; and does not limit log-ins, unless that was asked for. Where the
/// key is kept.
pub(super) fn prepare(config: &mut Config) -> Result<PathBuf, Failure> {
    if !config.auth.keys.is_empty() {
        return Err(Failure::Usage("--dev has a key of its own: leave it out, or auth.keys".to_owned()));
    }
    if !config.listen.address.ip().is_loopback() {
        let problem = "a development server listens on a loopback address only";
        return Err(Failure::Usage(format!("listen.address: {problem}: not {}", config.listen.address)));
    }
    let file = Path::new(DIRECTORY).join("dev.key");
    if !file.exists() {
        let in_file =
            |problem: &dyn std::fmt::Display| Failure::Failed(format!("{}: {problem}", file.display()));
        let secret = new_secret().map_err(|e| in_file(&e))?;
        write(&file, &secret).map_err(|e| in_file(&e))?;
    }
    config.auth.keys.push(TokenKey {
        id: "dev".to_owned(),
        algorithm: Algorithm::HS256,
        secret: None,
        secret_file: Some(file.clone()),
        public_key_file: None,
        private_key_file: None,
    });
    // Thousands of bots of this machine may log in at once, over and over.
    let (usual, rates) = (Config::default().rates, &mut config.rates);
    for (rate, usual) in
        [(&mut rates.logins, usual.logins), (&mut rates.logins_per_address, usual.logins_per_address)]
    {
        if *rate == usual {
            *rate = Rate { per_second: 100_000, burst: 100_000 };
        }
    }
    if config.matchmaking.queues.is_empty() {
        config.matchmaking.queues = Queue::development();
    }
    Ok(file)
}

fn write(file: &Path, secret: &str) -> io::Result<()> {
    fs::create_dir_all(DIRECTORY)?;
    // Keeps the directory out of whatever repository it is in.
    fs::write(Path::new(DIRECTORY).join(".gitignore"), "*\n")?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    writeln!(options.open(file)?, "{secret}")
}
