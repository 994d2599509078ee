//! Loads a configuration from its sources.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize as _;
use toml::{Table, Value};

use super::Config;

/// Prefix of the environment variables; sections are separated by `__`.
const PREFIX: &str = "SKIRMISH_";

/// Sources of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Name and content of the file, if there is one.
    pub file: Option<(PathBuf, String)>,
    /// Environment variables. A variable without the prefix `SKIRMISH_`, or without a `__`, is
    /// ignored: orchestrators set variables such as `SKIRMISH_PORT`.
    pub environment: Vec<(String, String)>,
    /// Flags: the key, the value in the notation of the file (or bare text), and the flag's name.
    pub flags: Vec<(String, String, String)>,
}

/// Source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// The file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// This flag.
    Flag(String),
    /// No single source: the value is the default, or several values do not go together.
    Combined,
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) | Self::Flag(name) => f.write_str(name),
            Self::Combined => f.write_str("configuration"),
        }
    }
}

/// An invalid configuration: the key, the source of the value, and the problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// Source of the value.
    pub source: ValueSource,
    /// The key, such as `frames.body_bytes`; empty for the file as a whole.
    pub key: String,
    /// The problem, on one line.
    pub problem: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for LoadError {}

impl Sources {
    /// Returns true if any source sets this key, or its section.
    #[must_use]
    pub fn sets(&self, key: &str) -> bool {
        let in_file = || {
            let (_, text) = self.file.as_ref()?;
            Some(lookup(&text.parse().ok()?, key))
        };
        let variable = format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"));
        self.flags.iter().any(|(set, ..)| within(key, set))
            || self.environment.iter().any(|(name, _)| *name == variable)
            || in_file().unwrap_or(false)
    }
}

/// Returns true if a key equals another, or is in its section.
fn within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

impl Config {
    /// Loads and validates the configuration of these sources.
    ///
    /// # Errors
    /// If the file is not TOML, a key is unknown, or a value is of the wrong type or makes no
    /// sense.
    pub fn load(sources: &Sources) -> Result<Self, LoadError> {
        let mut layers = Layers::new();
        if let Some((path, text)) = &sources.file {
            let table: Table = text.parse().map_err(|e: toml::de::Error| LoadError {
                source: ValueSource::File(path.clone()),
                key: String::new(),
                problem: on_one_line(&describe(&e, text)),
            })?;
            merge(&mut layers.merged, table.clone());
            layers.file = Some((path.clone(), table));
        }
        for (name, value) in &sources.environment {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            if rest.contains("__") {
                let key = rest.to_ascii_lowercase().replace("__", ".");
                layers.set(&key, value, ValueSource::Environment(name.clone()))?;
            }
        }
        for (key, value, flag) in &sources.flags {
            layers.set(key, value, ValueSource::Flag(flag.clone()))?;
        }
        let config = layers.parse()?;
        config.validate().map_err(|(key, problem)| layers.error(key, problem))?;
        Ok(config)
    }
}

/// The sources merged into one table, with the source of each value.
struct Layers {
    merged: Table,
    file: Option<(PathBuf, Table)>,
    overrides: BTreeMap<String, ValueSource>,
}

impl Layers {
    /// Starts with the defaults, so that a section that sets one key keeps the others.
    fn new() -> Self {
        let merged = Table::try_from(Config::default()).unwrap_or_default();
        Self { merged, file: None, overrides: BTreeMap::new() }
    }

    /// Sets one key, in place of an earlier value.
    fn set(&mut self, key: &str, text: &str, source: ValueSource) -> Result<(), LoadError> {
        let wrong = |problem: &str| LoadError {
            source: source.clone(),
            key: key.to_owned(),
            problem: problem.to_owned(),
        };
        let mut table = &mut self.merged;
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            if part.is_empty() {
                return Err(wrong("not a key: a name is missing between two dots"));
            }
            if parts.peek().is_none() {
                table.insert(part.to_owned(), value(text));
                break;
            }
            let inner = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            table = inner.as_table_mut().ok_or_else(|| wrong("not a section, but a value"))?;
        }
        self.overrides.insert(key.to_owned(), source);
        Ok(())
    }

    fn parse(&self) -> Result<Config, LoadError> {
        let mut track = serde_path_to_error::Track::new();
        let value = Value::Table(self.merged.clone());
        Config::deserialize(serde_path_to_error::Deserializer::new(value, &mut track)).map_err(|e| {
            let path = track.path().to_string();
            let mut key = if path == "." { String::new() } else { path };
            let message = on_one_line(e.message());
            // The path of an unknown key ends at its section.
            let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
            if let Some(name) = unknown
                && key.rsplit('.').next() != Some(name)
            {
                let dot = if key.is_empty() { "" } else { "." };
                key = format!("{key}{dot}{name}");
            }
            self.error(key, message)
        })
    }

    /// Returns an error at a key, with the source of the value.
    fn error(&self, key: String, problem: String) -> LoadError {
        let mut overrides = self.overrides.iter().rev();
        let by_override =
            overrides.find(|(set, _)| within(&key, set) || (!key.is_empty() && within(set, &key)));
        let source = match (by_override, &self.file) {
            (Some((_, source)), _) => source.clone(),
            (None, Some((path, table))) if lookup(table, &key) => ValueSource::File(path.clone()),
            (None, _) => ValueSource::Combined,
        };
        LoadError { source, key, problem }
    }
}

/// Merges one table over another, section by section.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Returns true if the table has the key.
fn lookup(table: &Table, key: &str) -> bool {
    let mut parts = key.split(['.', '[']);
    let Some(first) = parts.next().and_then(|part| table.get(part)) else { return key.is_empty() };
    let mut value = first;
    for part in parts {
        let next = match value {
            Value::Table(table) => table.get(part),
            Value::Array(array) => part.trim_end_matches(']').parse().ok().and_then(|i: usize| array.get(i)),
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => return false,
        }
    }
    true
}

/// Parses a value: as TOML if the text is TOML, else as the text itself.
fn value(text: &str) -> Value {
    match format!("value = {text}").parse::<Table>() {
        Ok(mut table) if table.len() == 1 => table.remove("value").unwrap_or_else(|| text.into()),
        _ => text.into(),
    }
}

/// Returns a parser's message with the line of the error.
fn describe(error: &toml::de::Error, text: &str) -> String {
    let line =
        error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    match line {
        Some(line) => format!("line {line}: {}", error.message()),
        None => error.message().to_owned(),
    }
}

fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
