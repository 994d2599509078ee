//! Tickets in three forms: as players request them, as the registry stores them, and as the engine
//! reads them.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest as _, Sha256};
use skirmish_proto::v1;

use super::config::QueueConfig;
use super::keys;
use super::settings::MatchmakingConfig;
use super::ticket::{Condition, Test, Ticket, TicketRefusal, Traits, Value};
use crate::base::id::Name;
use crate::base::time::{Duration, Instant, Now};
use crate::registry::Compare;

/// Maximum number of regions, of attributes and of conditions of a player's ticket.
pub(super) const MAX_ITEMS: usize = 8;

/// Maximum length of a party's key, in bytes.
const MAX_PARTY_KEY: usize = 32;

/// Maximum number of texts that a condition lists.
const MAX_TEXTS: usize = 16;

/// Reason of the refusal of a player's ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no queue of this mode.
    UnknownMode,
    /// The name of a party, of a region or of an attribute is not valid.
    BadName,
    /// The size of a party is below 2 or above that of a team, or a player without a party states a
    /// size.
    PartySize,
    /// The key of a party has more than 32 bytes, or a player without a party has a key.
    PartyKey,
    /// More than 8 regions, attributes or conditions, or more than 16 texts in a condition.
    TooMany,
    /// An attribute or a condition has no value.
    NoValue,
    /// The node has no place for another player.
    Full,
    /// The player gives up so many matches at once that another one has no place.
    TooManyQuits,
    /// A rule of the queue refuses the ticket.
    Rule(TicketRefusal),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownMode => f.write_str("there is no queue of this mode"),
            Self::BadName => {
                f.write_str("the name of the party, of a region or of an attribute is not a name")
            }
            Self::PartySize => f.write_str("a party must have from 2 players to as many as a team has"),
            Self::PartyKey => f.write_str("a party's key must have at most 32 bytes, and needs a party"),
            Self::TooMany => f.write_str("there are too many regions, attributes, conditions or texts"),
            Self::NoValue => f.write_str("an attribute or a condition has no value"),
            Self::Full => f.write_str("the node has no place for another player"),
            Self::TooManyQuits => f.write_str("too much is given up at once"),
            Self::Rule(refusal) => refusal.fmt(f),
        }
    }
}

impl core::error::Error for Refused {}

/// Encodes a record for the registry.
#[must_use]
pub fn encode(record: &impl Message) -> Bytes {
    record.encode_to_vec().into()
}

/// Decodes a record from the registry. A record that cannot be decoded counts as an empty one,
/// which represents neither a waiting ticket nor a match.
#[must_use]
pub fn decode<M: Message + Default>(value: &Bytes) -> M {
    M::decode(value.clone()).unwrap_or_default()
}

/// Adds the comparison that keeps a player of a match from having a ticket, and from being in
/// another match (G8). Every write of a ticket or a notice must include it.
pub(super) fn unmatched(compares: &mut Vec<Compare>, player: &Name) {
    compares.push(Compare::absent(keys::notice(player)));
}

/// Returns the time, by the monotonic clock, since which a ticket waits. The waiting time is that
/// of the wall clock, but is never negative and at most `most`, since wall clocks differ and jump.
pub(super) fn queued_at(now: Now, queued_ms: u64, most: Duration) -> Instant {
    let waited = Duration::from_millis(now.wall.0.saturating_sub(queued_ms)).min(most);
    let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
    Instant::from_micros(now.instant.as_micros().saturating_sub(micros))
}

/// Checks the request of a player, as far as possible without the other players of the party.
pub(super) fn check(config: &MatchmakingConfig, player: &Name, queue: &v1::Queue) -> Result<(), Refused> {
    let rules = config.queue(&queue.mode).ok_or(Refused::UnknownMode)?;
    let counts = [queue.latencies.len(), queue.attributes.len(), queue.conditions.len()];
    if counts.iter().any(|count| *count > MAX_ITEMS) {
        return Err(Refused::TooMany);
    }
    let sizes = if queue.party.is_empty() { 0..=1 } else { 2..=rules.team_size.into() };
    if !sizes.contains(&queue.party_size) {
        return Err(Refused::PartySize);
    }
    if queue.party_key.len() > MAX_PARTY_KEY || (queue.party.is_empty() && !queue.party_key.is_empty()) {
        return Err(Refused::PartyKey);
    }
    if !queue.party.is_empty() {
        name(&queue.party)?;
    }
    let mut ticket = ticket(config, rules, &[(player, queue)], Instant::ZERO)?;
    if !queue.latencies.is_empty() {
        let latency = |latency: &v1::RegionLatency| Ok((name(&latency.region)?, latency.millis));
        ticket.latencies = queue.latencies.iter().map(latency).collect::<Result<_, Refused>>()?;
    }
    ticket.admit(rules, Instant::ZERO).map(|_| ()).map_err(Refused::Rule)
}

/// Replaces a party's key by a digest. The digest suffices to tell parties apart, and the duration
/// of a comparison of digests reveals nothing about a key.
pub(super) fn seal_party(queue: &mut v1::Queue) {
    if queue.party_key.is_empty() {
        return;
    }
    let mut digest = Sha256::new_with_prefix(b"skirmish.v1 party");
    // Names contain no byte 0.
    for part in [queue.mode.as_bytes(), queue.party.as_bytes(), &queue.party_key] {
        digest.update([0]);
        digest.update(part);
    }
    queue.party_key = Bytes::copy_from_slice(&digest.finalize());
}

/// Returns the engine's ticket for a party or for one player; the first of `members`, which must
/// not be empty, is the leader.
///
/// * The rating is the mean of the players' ratings.
/// * The regions are those open to all players, each with the highest latency of a player. A player
///   that names no region may play in all of them, with latency 0.
/// * The attributes are those that all players have with the same value.
/// * The conditions are those of all players. The players of a party do not have to meet each
///   other's conditions.
pub(super) fn ticket(
    config: &MatchmakingConfig,
    rules: &QueueConfig,
    members: &[(&Name, &v1::Queue)],
    queued: Instant,
) -> Result<Ticket, Refused> {
    let Some(((leader, first), others)) = members.split_first() else { return Err(Refused::PartySize) };
    let rating = |queue: &v1::Queue| if config.trust_rating { queue.rating } else { config.default_rating };
    let sum: u64 = members.iter().map(|(_, queue)| u64::from(rating(queue))).sum();
    let mean = sum / members.len() as u64;
    let mut together = traits(&first.attributes, &first.conditions)?;
    for (_, queue) in others {
        together.join(&traits(&queue.attributes, &queue.conditions)?);
    }
    let latency = |region: &Name| {
        let worst = members.iter().map(|(_, queue)| latency_of(queue, region)).max()?;
        Some((region.clone(), u32::try_from(worst).ok()?))
    };
    Ok(Ticket {
        mode: rules.mode.clone(),
        leader: (*leader).clone(),
        others: others.iter().map(|(player, _)| (*player).clone()).collect(),
        rating: i32::try_from(mean).unwrap_or(i32::MAX),
        latencies: rules.regions.iter().filter_map(latency).collect(),
        traits: together,
        queued,
    })
}

/// Latency of a region that a player does not name, above any real latency.
const NOWHERE: u64 = u64::MAX;

fn latency_of(queue: &v1::Queue, region: &Name) -> u64 {
    if queue.latencies.is_empty() {
        return 0;
    }
    let named = queue.latencies.iter().find(|latency| latency.region == region.as_str());
    named.map_or(NOWHERE, |latency| latency.millis.into())
}

fn name(text: &str) -> Result<Name, Refused> {
    Name::new(text).map_err(|_| Refused::BadName)
}

/// Returns the traits of a player or a match from their records.
pub(super) fn traits(attributes: &[v1::Attribute], conditions: &[v1::Condition]) -> Result<Traits, Refused> {
    Ok(Traits { attributes: attributes_of(attributes)?, conditions: conditions_of(conditions)? })
}

/// Writes traits into a record; [`traits`] reads them.
pub(super) fn write_traits(traits: &Traits, record: &mut v1::MatchRecord) {
    let attribute = |(name, value): &(Name, Value)| {
        let value = match value {
            Value::Number(number) => v1::attribute::Value::Number(*number),
            Value::Text(text) => v1::attribute::Value::Text(text.clone()),
        };
        v1::Attribute { name: name.as_str().into(), value: Some(value) }
    };
    let condition = |Condition { attribute, test }: &Condition| {
        let value = match test {
            Test::Is(Value::Number(number)) => v1::condition::Value::Number(*number),
            Test::Is(Value::Text(text)) => v1::condition::Value::Text(text.clone()),
            Test::Between(low, high) => {
                v1::condition::Value::Range(v1::NumberRange { low: *low, high: *high })
            }
            Test::OneOf(values) => {
                let text = |value: &Value| match value {
                    Value::Text(text) => Some(text.clone()),
                    // Players list only texts.
                    Value::Number(_) => None,
                };
                v1::condition::Value::Set(v1::TextSet { texts: values.iter().filter_map(text).collect() })
            }
        };
        v1::Condition { name: attribute.as_str().into(), value: Some(value) }
    };
    record.attributes = traits.attributes.iter().map(attribute).collect();
    record.conditions = traits.conditions.iter().map(condition).collect();
}

fn attributes_of(attributes: &[v1::Attribute]) -> Result<Vec<(Name, Value)>, Refused> {
    let attribute = |attribute: &v1::Attribute| {
        let value = match attribute.value.as_ref().ok_or(Refused::NoValue)? {
            v1::attribute::Value::Number(number) => Value::Number(*number),
            v1::attribute::Value::Text(text) => Value::Text(text.clone()),
        };
        Ok((name(&attribute.name)?, value))
    };
    attributes.iter().map(attribute).collect()
}

fn conditions_of(conditions: &[v1::Condition]) -> Result<Vec<Condition>, Refused> {
    let condition = |condition: &v1::Condition| {
        let test = match condition.value.as_ref().ok_or(Refused::NoValue)? {
            v1::condition::Value::Number(number) => Test::Is(Value::Number(*number)),
            v1::condition::Value::Text(text) => Test::Is(Value::Text(text.clone())),
            v1::condition::Value::Range(range) => Test::Between(range.low, range.high),
            v1::condition::Value::Set(set) if set.texts.len() > MAX_TEXTS => return Err(Refused::TooMany),
            v1::condition::Value::Set(set) => {
                Test::OneOf(set.texts.iter().map(|text| Value::Text(String::clone(text))).collect())
            }
        };
        Ok(Condition { attribute: name(&condition.name)?, test })
    };
    conditions.iter().map(condition).collect()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;
    use alloc::vec;

    use super::*;
    use crate::base::time::Wall;

    fn name_of(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn config() -> MatchmakingConfig {
        let regions = vec![name_of("eu"), name_of("us")];
        let mut config = MatchmakingConfig::new(vec![QueueConfig::new(name_of("duo"), 2, 2, regions)]);
        config.trust_rating = true;
        config
    }

    fn latency(region: &str, millis: u32) -> v1::RegionLatency {
        v1::RegionLatency { region: region.to_string(), millis }
    }

    fn attribute(name: &str, number: i64) -> v1::Attribute {
        v1::Attribute { name: name.to_string(), value: Some(v1::attribute::Value::Number(number)) }
    }

    fn condition(name: &str, value: Option<v1::condition::Value>) -> v1::Condition {
        v1::Condition { name: name.to_string(), value }
    }

    fn good() -> v1::Queue {
        v1::Queue {
            mode: "duo".to_string(),
            party: "p".to_string(),
            party_size: 2,
            rating: 1700,
            latencies: vec![latency("eu", 20), latency("us", 90)],
            attributes: vec![attribute("level", 3), attribute("team", 1)],
            conditions: vec![condition("level", Some(v1::condition::Value::Number(3)))],
            search: 7,
            session_epoch: 0,
            party_key: Bytes::from_static(b"secret"),
        }
    }

    #[test]
    fn what_a_player_asks_for_is_checked() {
        let (config, ann) = (config(), name_of("ann"));
        assert_eq!(check(&config, &ann, &good()), Ok(()));
        let alone = v1::Queue { mode: "duo".to_string(), ..v1::Queue::default() };
        assert_eq!(check(&config, &ann, &alone), Ok(()));
        let set = |count| {
            let texts = vec!["x".to_string(); count];
            condition("level", Some(v1::condition::Value::Set(v1::TextSet { texts })))
        };
        let rule = Refused::Rule;
        type Spoil = fn(&mut v1::Queue);
        let cases: [(Spoil, Refused); 13] = [
            (|q| q.mode = "war".to_string(), Refused::UnknownMode),
            (|q| q.party = "no name".to_string(), Refused::BadName),
            (|q| q.party_size = 1, Refused::PartySize),
            (|q| q.party_size = 3, Refused::PartySize),
            (|q| q.party.clear(), Refused::PartySize),
            (|q| (q.party, q.party_size) = (String::new(), 0), Refused::PartyKey),
            (|q| q.party_key = Bytes::from_static(&[1; 33]), Refused::PartyKey),
            (|q| q.latencies = vec![latency("eu", 1); 9], Refused::TooMany),
            (|q| q.attributes[0].value = None, Refused::NoValue),
            (|q| q.conditions[0].value = None, Refused::NoValue),
            (
                |q| q.attributes[1].name = "level".to_string(),
                rule(TicketRefusal::ListedTwice(name_of("level"))),
            ),
            (
                |q| q.latencies[0].region = "mars".to_string(),
                rule(TicketRefusal::UnknownRegion(name_of("mars"))),
            ),
            (|q| q.rating = 1_000_001, rule(TicketRefusal::RatingOutOfRange)),
        ];
        for (spoil, refused) in cases {
            let mut bad = good();
            spoil(&mut bad);
            assert_eq!(check(&config, &ann, &bad), Err(refused));
        }
        let mut many = good();
        many.conditions = vec![set(17)];
        assert_eq!(check(&config, &ann, &many), Err(Refused::TooMany));
        many.conditions = vec![set(16)];
        assert_eq!(check(&config, &ann, &many), Ok(()));
    }

    #[test]
    fn a_party_s_key_is_neither_shown_nor_kept() {
        let sealed = |mode: &str, party: &str, key: &'static [u8]| {
            let (mode, party) = (mode.to_string(), party.to_string());
            let mut queue = v1::Queue { mode, party, party_key: Bytes::from_static(key), ..good() };
            seal_party(&mut queue);
            assert!(!alloc::format!("{queue:?}").contains("key: b"), "{queue:?}");
            queue.party_key
        };
        let all = [("duo", "p", &b"k"[..]), ("duo", "p", b"l"), ("duo", "q", b"k"), ("war", "p", b"k")];
        let digests: Vec<Bytes> = all.map(|(mode, party, key)| sealed(mode, party, key)).into();
        for (index, digest) in digests.iter().enumerate() {
            assert_eq!(digest.len(), 32);
            assert!(!digests[..index].contains(digest));
        }
        assert_eq!(sealed("duo", "p", b"k"), digests[0]);
        assert_eq!(sealed("duo", "p", b""), Bytes::new());
    }

    #[test]
    fn a_party_is_as_its_players_together() {
        let (mut config, ann, bob) = (config(), name_of("ann"), name_of("bob"));
        let (one, mut two) = (good(), good());
        two.rating = 1301;
        two.latencies = vec![latency("us", 120)];
        two.attributes = vec![attribute("level", 3), attribute("team", 2)];
        two.conditions.push(condition("team", Some(v1::condition::Value::Number(1))));
        let members = [(&ann, &one), (&bob, &two)];
        let made = ticket(&config, &config.queues[0], &members, Instant::ZERO).unwrap();
        assert_eq!((made.leader, made.others, made.rating), (ann.clone(), vec![bob.clone()], 1500));
        assert_eq!(made.latencies, [(name_of("us"), 120)]);
        assert_eq!(made.traits.attributes, [(name_of("level"), Value::Number(3))]);
        assert_eq!(made.traits.conditions.len(), 2);
        // A player that names no region excludes none.
        two.latencies.clear();
        config.trust_rating = false;
        let members = [(&ann, &one), (&bob, &two)];
        let made = ticket(&config, &config.queues[0], &members, Instant::ZERO).unwrap();
        assert_eq!(made.latencies, [(name_of("eu"), 20), (name_of("us"), 90)]);
        assert_eq!(made.rating, 1500);
    }

    #[test]
    fn waiting_is_counted_by_the_wall_clock_within_bounds() {
        let now = Now { instant: Instant::from_micros(60_000_000), wall: Wall(1_000_000) };
        let at = |queued_ms| queued_at(now, queued_ms, Duration::from_secs(30)).as_micros() / 1_000_000;
        assert_eq!([at(990_000), at(2_000_000), at(1_000_000), at(0)], [50, 60, 60, 30]);
    }
}
