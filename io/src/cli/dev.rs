//! The key of a development server, and its default queues.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::CommandFailure;
use crate::config::{Algorithm, Config, QueueSection, RateLimit, TokenKey};
use crate::token::{MIN_SECRET, new_secret};

/// Directory of the key, in the working directory: `skirmish token --dev` finds the key there, and
/// tokens outlive a restart.
const DIRECTORY: &str = ".skirmish";
/// Longest file that is read as a key, in bytes.
const LONGEST: usize = 4096;

/// The reason for a missing development key.
#[derive(Debug, thiserror::Error)]
enum DevKeyError {
    /// The file exists and is no key.
    #[error(
        "{}: {problem}: move it away, and a new key is made (tokens signed with an old one are void then)",
        .file.display()
    )]
    Unusable { file: PathBuf, problem: String },
    /// The file cannot be made.
    #[error(
        "{}: cannot make a key for --dev: {error}: start where this directory can be written, or leave --dev \
         out and configure auth.keys",
        .file.display()
    )]
    Unwritable { file: PathBuf, error: io::Error },
    /// The system has no randomness.
    #[error("cannot make a key for --dev: no randomness: {0}")]
    Randomness(getrandom::Error),
}

/// Prepares the configuration of a development server: adds the development key, creating the key
/// file if it is missing, adds queues if there are none, and lifts the default limits of log-ins.
/// Returns the path of the key file.
pub(super) fn prepare(config: &mut Config) -> Result<PathBuf, CommandFailure> {
    if !config.auth.keys.is_empty() {
        return Err(CommandFailure::Usage(
            "--dev has a key of its own: leave it out, or auth.keys".to_owned(),
        ));
    }
    if !config.listen.address.ip().is_loopback() {
        let problem = "a development server listens on a loopback address only";
        return Err(CommandFailure::Usage(format!(
            "listen.address: {problem}: not {}",
            config.listen.address
        )));
    }
    let file = Path::new(DIRECTORY).join("dev.key");
    ensure(&file).map_err(|error| CommandFailure::Failed(error.to_string()))?;
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
            *rate = RateLimit { per_second: 100_000, burst: 100_000 };
        }
    }
    if config.matchmaking.queues.is_empty() {
        config.matchmaking.queues = QueueSection::development();
    }
    Ok(file)
}

/// Creates the key file if it is missing, and checks its content.
fn ensure(file: &Path) -> Result<(), DevKeyError> {
    if is_key(file)? {
        return Ok(());
    }
    let secret = new_secret().map_err(DevKeyError::Randomness)?;
    make(file, &secret).map_err(|error| DevKeyError::Unwritable { file: file.to_owned(), error })?;
    // Another start may have been faster: then its key counts.
    match is_key(file)? {
        true => Ok(()),
        false => {
            let problem = "it is a link to a file that is not there".to_owned();
            Err(DevKeyError::Unusable { file: file.to_owned(), problem })
        }
    }
}

/// Returns true if the file is a key, and false if there is no file.
fn is_key(file: &Path) -> Result<bool, DevKeyError> {
    let unusable = |problem: String| DevKeyError::Unusable { file: file.to_owned(), problem };
    let cannot = |error: io::Error| unusable(format!("cannot be read: {error}"));
    // Checked before the file is opened: opening a pipe would wait for a writer.
    match fs::metadata(file) {
        Ok(found) if found.is_dir() => {
            return Err(unusable("a directory is in the place of the key".to_owned()));
        }
        Ok(found) if !found.is_file() => return Err(unusable("it is not a file".to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        // A parent is no directory. Creating the key gives a better error.
        Err(error) if error.kind() == ErrorKind::NotADirectory => return Ok(false),
        Err(error) => return Err(cannot(error)),
    }
    let mut content = Vec::new();
    let bound = u64::try_from(LONGEST).unwrap_or(u64::MAX) + 1;
    File::open(file).and_then(|open| open.take(bound).read_to_end(&mut content)).map_err(cannot)?;
    match content.trim_ascii() {
        [] => Err(unusable("the file is empty".to_owned())),
        _ if content.len() > LONGEST => Err(unusable(format!("no key is longer than {LONGEST} bytes"))),
        // After a power failure the file system may have left zeros.
        key if !key.iter().all(u8::is_ascii_graphic) => Err(unusable("it is not a key".to_owned())),
        key if key.len() < MIN_SECRET => {
            Err(unusable(format!("a key has at least {MIN_SECRET} bytes, not {}", key.len())))
        }
        _ => Ok(true),
    }
}

/// Creates the file with its whole content, or not at all. An existing file stays.
fn make(file: &Path, secret: &str) -> io::Result<()> {
    fs::create_dir_all(DIRECTORY)?;
    // Keeps the directory out of any repository around it.
    fs::write(Path::new(DIRECTORY).join(".gitignore"), "*\n")?;
    let draft = file.with_extension(format!("key.{}", std::process::id()));
    // The draft of a killed start with the same process number.
    let _ = fs::remove_file(&draft);
    let made = write(&draft, secret).and_then(|()| publish(&draft, file));
    let _ = fs::remove_file(&draft);
    made?;
    // Best effort: some file systems do not flush directories.
    let _ = File::open(DIRECTORY).and_then(|directory| directory.sync_all());
    Ok(())
}

fn write(draft: &Path, secret: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut draft = options.open(draft)?;
    writeln!(draft, "{secret}")?;
    draft.sync_all()
}

/// Gives a complete file its name, unless the name is in use.
fn publish(draft: &Path, file: &Path) -> io::Result<()> {
    match fs::hard_link(draft, file) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        // Some file systems have no links. Renaming could replace the key of another start at the
        // same moment. This is unlikely, and shows at the first token of that start.
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
            fs::rename(draft, file)
        }
        Err(error) => Err(error),
    }
}
