//! Key of a development server: written completely or not at all, and never overwritten.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use skirmish_tests::process::command;
use skirmish_tests::within;

/// Directory that is removed when it is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("skirmish-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    fn key(&self) -> PathBuf {
        self.0.join(".skirmish/dev.key")
    }

    /// Creates the directory of the key, and the key with `content`.
    fn with_key(&self, content: &[u8]) {
        fs::create_dir_all(self.0.join(".skirmish")).expect("a directory");
        fs::write(self.key(), content).expect("a file");
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn token(directory: &Path) -> Output {
    let mut command = command();
    command.args(["token", "--dev", "--player", "alice"]).current_dir(directory);
    within("the end of the program", command.output()).await.expect("the program runs")
}

/// Checks that the program fails with one line that names the file.
async fn fails(directory: &Directory, says: &str) {
    let output = token(&directory.0).await;
    let error = String::from_utf8(output.stderr).expect("it is text");
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.starts_with("error: .skirmish/dev.key: ") && error.contains(says), "{error}");
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn it_is_made_once_and_for_its_owner_only() {
    let directory = Directory::new("dev-key");
    assert!(token(&directory.0).await.status.success());
    let key = fs::read(directory.key()).expect("it is there");
    assert_eq!(fs::metadata(directory.key()).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert!(token(&directory.0).await.status.success());
    assert_eq!(fs::read(directory.key()).expect("it is there"), key);
    let mut names: Vec<_> = fs::read_dir(directory.0.join(".skirmish"))
        .expect("it is there")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("it is text"))
        .collect();
    names.sort();
    assert_eq!(names, [".gitignore", "dev.key"], "nothing else is left");
}

#[tokio::test]
async fn starts_at_the_same_moment_have_the_same_key() {
    let directory = Directory::new("dev-key-race");
    let starts = (0..8).map(|_| {
        let path = directory.0.clone();
        tokio::spawn(async move { token(&path).await })
    });
    for start in starts.collect::<Vec<_>>() {
        let output = start.await.expect("it does not panic");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(fs::read_dir(directory.0.join(".skirmish")).expect("it is there").count(), 2);
}

#[tokio::test]
async fn what_is_no_key_is_refused_and_left_alone() {
    let directory = Directory::new("dev-key-garbage");
    for (content, says) in [
        (&b""[..], "the file is empty"),
        (b" \n", "the file is empty"),
        (b"short\n", "at least 32 bytes"),
        (&[0; 44], "it is not a key"),
        (&[0xff; 64], "it is not a key"),
        (&[b'a'; 100_000], "no key is longer"),
    ] {
        directory.with_key(content);
        fails(&directory, says).await;
        assert_eq!(fs::read(directory.key()).expect("it is there"), content);
    }
}

#[tokio::test]
async fn something_else_in_its_place() {
    let directory = Directory::new("dev-key-else");
    fs::create_dir_all(directory.key()).expect("a directory");
    fails(&directory, "a directory is in the place of the key").await;
    fs::remove_dir(directory.key()).expect("it was made here");
    std::os::unix::fs::symlink("nowhere", directory.key()).expect("a link");
    fails(&directory, "a link to a file that is not there").await;
    fs::remove_file(directory.key()).expect("it was made here");
    std::os::unix::fs::symlink("/dev/zero", directory.key()).expect("a link");
    fails(&directory, "it is not a file").await;
    fs::remove_dir_all(directory.0.join(".skirmish")).expect("it was made here");
    fs::write(directory.0.join(".skirmish"), "").expect("a file");
    fails(&directory, "cannot make a key for --dev").await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_written() {
    // Even root cannot create files in this directory.
    let directory = Directory(PathBuf::from("/proc/self"));
    let output = token(&directory.0).await;
    std::mem::forget(directory);
    let error = String::from_utf8(output.stderr).expect("it is text");
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("cannot make a key for --dev") && error.contains("can be written"), "{error}");
}
