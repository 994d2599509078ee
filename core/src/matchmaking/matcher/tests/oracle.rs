//! Invariants of the registry at every revision, for every writer.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString as _};

use bytes::Bytes;
use skirmish_proto::v1::{self, TicketState};

use super::cluster::name;
use crate::base::id::{Name, NodeId};
use crate::base::time::Instant;
use crate::matchmaking::MatchmakingConfig;
use crate::matchmaking::keys::{self, Kind};
use crate::matchmaking::record::decode;
use crate::registry::{
    Answer, Change, Compare, KeyValue, News, Range, Registry, RegistryOp, Request, Response, Span, Watched,
};

pub(super) struct Oracle {
    config: MatchmakingConfig,
    /// Current elections by mode: revision and node.
    elected: BTreeMap<String, (u64, u64)>,
    /// Live matches of players: written and not deleted.
    pub(super) live: BTreeMap<Name, v1::Matched>,
    pub(super) formed: u64,
    /// Number of fillings of free places.
    pub(super) filled: u64,
    /// Number of removals of players that did not join in time.
    pub(super) missed: u64,
    /// Matches that were sent to their players.
    told: BTreeSet<(Name, String, u32)>,
    /// Number of ended tickets, by state.
    pub(super) ended: BTreeMap<i32, u64>,
    /// Ends of the players' searches, as sent to them.
    ends: BTreeMap<(Name, u64), End>,
}

/// End of a search, as sent to its player.
#[derive(Clone, Debug, PartialEq)]
enum End {
    Ticket(TicketState),
    Match(String),
}

impl Oracle {
    pub(super) fn new(config: &MatchmakingConfig) -> Self {
        Self {
            config: config.clone(),
            elected: BTreeMap::new(),
            live: BTreeMap::new(),
            formed: 0,
            filled: 0,
            missed: 0,
            told: BTreeSet::new(),
            ended: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
    }

    /// Checks that a match that a client received was formed with its player.
    pub(super) fn heard(&mut self, player: &Name, matched: &v1::Matched) {
        let team = &matched.teams[matched.team as usize];
        assert!(team.players.contains(&player.to_string()), "{player} is told a wrong team");
        self.told.insert((player.clone(), matched.r#match.clone(), matched.fills));
        self.end(player, matched.search, End::Match(matched.r#match.clone()));
    }

    /// Notes that a client received the end of a search without a match.
    pub(super) fn ended(&mut self, player: &Name, search: u64, state: TicketState) {
        let known = self.ends.get(&(player.clone(), search));
        let is_said = match (state, known) {
            // The match is over, or the `Cancel` went to a node that did not end the search.
            (TicketState::None, Some(_)) => true,
            // The player is out of the match.
            (TicketState::GivenUp, Some(End::Match(_))) => true,
            _ => false,
        };
        if !is_said {
            self.end(player, search, End::Ticket(state));
        }
    }

    /// Checks that a search ends once, and in one way.
    fn end(&mut self, player: &Name, search: u64, end: End) {
        if search != 0 {
            let known = self.ends.entry((player.clone(), search)).or_insert_with(|| end.clone());
            assert_eq!(*known, end, "search {search} of {player} ends twice");
        }
    }

    /// Returns true if the player has received the match in its current state.
    pub(super) fn was_told(&self, player: &Name, matched: &v1::Matched) -> bool {
        self.told.contains(&(player.clone(), matched.r#match.clone(), matched.fills))
    }

    pub(super) fn watched(&mut self, watched: &Watched) {
        let News::Changes(changes) = &watched.news else { return };
        let mut rest = changes.as_slice();
        while let Some(first) = rest.first() {
            let count = rest.iter().take_while(|change| change.revision() == first.revision()).count();
            let (revision, later) = rest.split_at(count);
            self.revision(revision);
            rest = later;
        }
    }

    /// Checks the changes of one revision.
    fn revision(&mut self, changes: &[Change]) {
        let find = |key: &Bytes| changes.iter().find(|change| change.key() == key);
        for change in changes {
            let key = core::str::from_utf8(change.key()).unwrap();
            if let Some(mode) = key.strip_prefix("/match/matcher/") {
                let elected = match change {
                    Change::Put { kv, .. } => {
                        let record: v1::MatcherRecord = decode(&kv.value);
                        self.elected.insert(mode.to_string(), (kv.created, record.node))
                    }
                    Change::Delete { .. } => self.elected.remove(mode),
                };
                let is_new = elected.is_none() || matches!(change, Change::Delete { .. });
                assert!(is_new, "two are elected for {mode}");
            }
            match (keys::owner(change.key()), change) {
                (Some((Kind::Notice, player)), Change::Put { kv, prev }) => {
                    let notice: v1::NoticeRecord = decode(&kv.value);
                    let before = prev.as_ref().map(|kv| decode::<v1::NoticeRecord>(&kv.value));
                    let same = |before: &v1::NoticeRecord| {
                        let v1::NoticeRecord { fills, joined, since_ms, .. } = *before;
                        *before == v1::NoticeRecord { fills, joined, since_ms, ..notice.clone() }
                            && joined <= notice.joined
                            && since_ms >= notice.since_ms
                    };
                    assert!(
                        before.as_ref().is_none_or(same),
                        "{player} is put into a match while it is in one (G8)"
                    );
                    // A player that joins the room sets `joined`, and nothing else changes.
                    let comes = notice.joined
                        && before.is_some_and(|b| v1::NoticeRecord { joined: true, ..b } == notice);
                    assert!(
                        comes || find(&keys::match_key(&notice.r#match)).is_some(),
                        "{player} has a notice of no match"
                    );
                }
                (Some((Kind::Notice, player)), Change::Delete { .. }) => drop(self.live.remove(&player)),
                (Some((Kind::Ticket, player)), Change::Put { kv, .. }) => {
                    assert!(!self.live.contains_key(&player), "{player} is queued while it is in a match");
                    let record: v1::TicketRecord = decode(&kv.value);
                    if record.state() == TicketState::Waiting {
                        let search = record.queue.map_or(0, |queue| queue.search);
                        let end = self.ends.get(&(player.clone(), search));
                        assert_eq!(end, None, "{player} is queued by search {search} that has ended (G8)");
                    } else {
                        *self.ended.entry(record.state).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        for change in changes {
            let Change::Put { kv, prev } = change else { continue };
            if kv.key.starts_with(b"/match/pairs/") {
                match prev {
                    None => self.form(kv, find),
                    // The rest of the record may change alone: its times, and the mark that the
                    // match has begun.
                    Some(before) => {
                        let of = |kv: &KeyValue| decode::<v1::MatchRecord>(&kv.value).r#match;
                        if of(kv) != of(before) {
                            self.fill(before, kv, find);
                        }
                    }
                }
            }
        }
    }

    /// Checks that a match is formed as a whole: all tickets waited, and all notices are of this
    /// revision.
    fn form<'a>(&mut self, kv: &KeyValue, find: impl Fn(&Bytes) -> Option<&'a Change>) {
        let record: v1::MatchRecord = decode(&kv.value);
        let matched = record.r#match.unwrap();
        self.formed += 1;
        let queue = self.config.queue(&matched.mode).unwrap();
        let (epoch, _) = self.elected[&matched.mode];
        assert_eq!(epoch, record.matcher_epoch, "a matcher that is not elected forms a match");
        assert_eq!(matched.teams.len(), usize::from(queue.teams));
        for team in &matched.teams {
            assert_eq!(team.players.len(), queue.team_size.into());
        }
        self.enter(&matched, find);
    }

    /// Checks a change of a match. Either it adds players as a new match does and keeps all others,
    /// or it removes only players that have not joined.
    fn fill<'a>(&mut self, before: &KeyValue, kv: &KeyValue, find: impl Fn(&Bytes) -> Option<&'a Change>) {
        let (before, record): (v1::MatchRecord, v1::MatchRecord) = (decode(&before.value), decode(&kv.value));
        let (before, matched) = (before.r#match.unwrap(), record.r#match.unwrap());
        let queue = self.config.queue(&matched.mode).unwrap();
        let players = |matched: &v1::Matched| {
            let players = matched.teams.iter().flat_map(|team| team.players.clone());
            players.collect::<BTreeSet<String>>()
        };
        let is_filled = !players(&matched).is_subset(&players(&before));
        if is_filled {
            self.filled += 1;
            assert!(queue.backfill, "nobody wants free places of {} to be filled", matched.mode);
        } else {
            self.missed += 1;
        }
        assert_eq!((&before.r#match, before.fills + 1), (&matched.r#match, matched.fills));
        let (epoch, _) = self.elected[&matched.mode];
        assert_eq!(epoch, record.matcher_epoch, "a matcher that is not elected fills a match");
        assert_eq!(matched.teams.len(), usize::from(queue.teams));
        for team in &matched.teams {
            assert!(team.players.len() <= queue.team_size.into(), "a team has too many players");
        }
        for (player, theirs) in self.live.iter().filter(|(_, theirs)| theirs.r#match == matched.r#match) {
            let team = &matched.teams[theirs.team as usize];
            let is_out = match find(&keys::notice(player)) {
                Some(Change::Delete { prev: Some(notice), .. }) => {
                    !decode::<v1::NoticeRecord>(&notice.value).joined
                }
                _ => false,
            };
            let stays = team.players.contains(&player.to_string());
            assert!(stays || is_out && !is_filled, "{player} is put out of its team");
        }
        self.enter(&matched, find);
    }

    /// Checks that the waiting ticket of each added player is consumed, and that it has a notice.
    fn enter<'a>(&mut self, matched: &v1::Matched, find: impl Fn(&Bytes) -> Option<&'a Change>) {
        let mut parties: BTreeMap<(String, Bytes, u32), (u32, usize)> = BTreeMap::new();
        for (team, index) in matched.teams.iter().zip(0..) {
            for player in &team.players {
                let player = Name::new(player).unwrap();
                let Some(Change::Put { kv, prev }) = find(&keys::notice(&player)) else {
                    panic!("{player} has no notice of its match")
                };
                let notice: v1::NoticeRecord = decode(&kv.value);
                assert_eq!(
                    (notice.r#match.clone(), notice.team, notice.fills),
                    (matched.r#match.clone(), index, matched.fills)
                );
                self.live.insert(player.clone(), v1::Matched { team: index, ..matched.clone() });
                if prev.is_some() {
                    continue;
                }
                let consumed = find(&keys::ticket(&player));
                let Some(Change::Delete { prev: Some(ticket), .. }) = consumed else {
                    panic!("the ticket of {player} is not consumed")
                };
                let ticket: v1::TicketRecord = decode(&ticket.value);
                assert_eq!(ticket.state(), TicketState::Waiting);
                assert_eq!(ticket.absent_ms, 0, "{player} is matched while it is absent");
                let wish = ticket.queue.unwrap();
                assert_eq!(wish.mode, matched.mode);
                assert_eq!(wish.search, notice.search, "the match is the answer to another search");
                let end = self.ends.get(&(player.clone(), wish.search));
                assert_eq!(end, None, "{player} is matched by search {} that has ended", wish.search);
                if !wish.party.is_empty() {
                    let part =
                        parties.entry((wish.party, wish.party_key, wish.party_size)).or_insert((index, 0));
                    assert_eq!(part.0, index, "a party is split");
                    part.1 += 1;
                }
            }
        }
        for ((.., size), (_, count)) in parties {
            assert_eq!(size as usize, count, "a party is matched in part");
        }
    }

    /// Checks that the writer was entitled: the elected matcher, or the node with the session.
    pub(super) fn author(
        &self,
        node: NodeId,
        request: &Request,
        response: Option<&Response>,
        registry: &mut Registry,
        now: Instant,
    ) {
        let (Request::Txn(txn), Some(Response { answer: Answer::Txn { succeeded, .. }, .. })) =
            (request, response)
        else {
            return;
        };
        let done = if *succeeded { &txn.success } else { &txn.failure };
        for op in done {
            let RegistryOp::Put(put) = op else { continue };
            let Some((Kind::Ticket, player)) = keys::owner(&put.key) else {
                if put.key.starts_with(b"/match/pairs/") {
                    let record: v1::MatchRecord = decode(&put.value);
                    let mode = record.r#match.unwrap().mode;
                    let (epoch, elected) = self.elected[&mode];
                    assert_eq!(elected, node.0, "a deposed matcher has written");
                    let fence = Compare::same_life(keys::matcher(&name(&mode)), epoch);
                    assert!(txn.compares.contains(&fence), "a match is written without a fence");
                }
                continue;
            };
            let record: v1::TicketRecord = decode(&put.value);
            if record.state() == TicketState::Waiting {
                let range = Range::of(Span::one(keys::session(&player)));
                let answer = registry.handle(now, &Request::Range(range)).unwrap().answer;
                let Answer::Range { kvs, .. } = answer else { panic!() };
                let session: v1::SessionRecord = decode(&kvs[0].value);
                assert_eq!(session.node, node.0, "{player} is queued by a node without its session");
            } else {
                let elected = self.elected[&record.queue.unwrap().mode];
                assert_eq!(elected.1, node.0, "a deposed matcher has ended a ticket");
            }
        }
    }
}
