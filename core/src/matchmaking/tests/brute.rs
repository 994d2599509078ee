//! Legality of matches, computed from the definition and by trying every combination.

use super::*;

/// Returns the width of a bound.
fn width(widening: &Widening, now: Instant, since: Instant) -> u128 {
    let micros = u128::from(now.as_micros() - since.as_micros());
    (u128::from(widening.start) + u128::from(widening.per_second) * micros / 1_000_000)
        .min(widening.most.into())
}

fn meets(conditions: &[Condition], attributes: &[(Name, Value)]) -> bool {
    conditions.iter().all(|condition| {
        attributes.iter().any(|(key, value)| {
            *key == condition.attribute
                && match &condition.test {
                    Test::Is(wanted) => wanted == value,
                    Test::OneOf(wanted) => wanted.iter().any(|wanted| wanted == value),
                    Test::Between(low, high) => match value {
                        Value::Number(number) => low <= number && number <= high,
                        Value::Text(_) => false,
                    },
                }
        })
    })
}

fn agree(one: &Traits, other: &Traits) -> bool {
    meets(&one.conditions, &other.attributes) && meets(&other.conditions, &one.attributes)
}

fn reaches(config: &QueueConfig, now: Instant, ticket: &Ticket, region: &Name) -> bool {
    let cap = width(&config.latency, now, ticket.queued);
    ticket.latencies.iter().any(|(name, latency)| name == region && u128::from(*latency) <= cap)
}

/// Returns the quality, per mille, computed with fractions.
fn quality(config: &QueueConfig, teams: &[Vec<&Ticket>]) -> u16 {
    let ratings: Vec<i64> = teams.iter().flatten().map(|ticket| i64::from(ticket.rating)).collect();
    let strength = |team: &Vec<&Ticket>| -> i64 {
        team.iter().map(|ticket| i64::from(ticket.rating) * i64::try_from(ticket.size()).unwrap()).sum()
    };
    let strengths: Vec<i64> = teams.iter().map(strength).collect();
    let between = |values: &[i64]| values.iter().max().unwrap() - values.iter().min().unwrap();
    let share = |part: i64, whole: i64| (1000 * (whole - part.min(whole))).div_euclid(whole);
    let closeness = share(between(&ratings), config.quality.worst_spread.into());
    let worst = i64::from(config.quality.worst_difference) * i64::from(config.team_size);
    u16::try_from(closeness.min(share(between(&strengths), worst))).unwrap()
}

/// Checks that the teams are a legal match.
///
/// # Errors
/// The rule that they break.
pub(super) fn legal(
    config: &QueueConfig,
    now: Instant,
    region: &Name,
    teams: &[Vec<&Ticket>],
) -> Result<u16, &'static str> {
    let check = |holds: bool, error| if holds { Ok(()) } else { Err(error) };
    check(teams.len() == usize::from(config.teams), "teams")?;
    for team in teams {
        let size: usize = team.iter().map(|ticket| ticket.size()).sum();
        check(size == usize::from(config.team_size), "size of a team")?;
    }
    let all: Vec<&Ticket> = teams.iter().flatten().copied().collect();
    for (index, one) in all.iter().enumerate() {
        check(reaches(config, now, one, region), "latency")?;
        for other in &all[index + 1..] {
            check(one.players().all(|player| other.players().all(|p| p != player)), "a player twice")?;
            let distance = u128::from(one.rating.abs_diff(other.rating));
            check(distance <= width(&config.rating, now, one.queued), "rating")?;
            check(distance <= width(&config.rating, now, other.queued), "rating")?;
            check(agree(&one.traits, &other.traits), "conditions")?;
        }
    }
    let quality = quality(config, teams);
    check(quality >= config.quality.floor, "quality")?;
    Ok(quality)
}

/// Returns true if two tickets can be together in a legal match in this region.
pub(super) fn pair(config: &QueueConfig, now: Instant, region: &Name, one: &Ticket, other: &Ticket) -> bool {
    let distance = one.rating.abs_diff(other.rating);
    let closeness = 1000 * u64::from(distance)
        <= u64::from(1000 - config.quality.floor) * u64::from(config.quality.worst_spread);
    one.leader != other.leader
        && closeness
        && [one, other].iter().all(|ticket| {
            reaches(config, now, ticket, region)
                && u128::from(distance) <= width(&config.rating, now, ticket.queued)
        })
        && agree(&one.traits, &other.traits)
}

/// Checks that the ticket may have the places of the room.
///
/// # Errors
/// The rule that the ticket breaks.
pub(super) fn legal_backfill(
    config: &QueueConfig,
    now: Instant,
    vacancy: &Vacancy,
    ticket: &Ticket,
) -> Result<(), &'static str> {
    let check = |holds: bool, error| if holds { Ok(()) } else { Err(error) };
    let distance = u128::from(vacancy.rating.abs_diff(ticket.rating));
    check(ticket.size() <= vacancy.places.into(), "size")?;
    check(reaches(config, now, ticket, &vacancy.region), "latency")?;
    check(distance <= width(&config.rating, now, ticket.queued), "rating")?;
    check(distance <= width(&config.rating, now, vacancy.offered), "rating")?;
    check(agree(&ticket.traits, &vacancy.traits), "conditions")?;
    let lost = (distance * 1000).div_ceil(config.quality.worst_spread.into());
    check(1000_u128.saturating_sub(lost) >= config.quality.floor.into(), "quality")
}

/// Returns true if the ticket at the index `with` is in a legal match with some of the others.
pub(super) fn exists(config: &QueueConfig, now: Instant, tickets: &[Ticket], with: usize) -> bool {
    let teams = vec![Vec::new(); config.teams.into()];
    let others: Vec<&Ticket> =
        tickets.iter().enumerate().filter(|(index, _)| *index != with).map(|(_, ticket)| ticket).collect();
    config.regions.iter().any(|region| {
        let mut teams = teams.clone();
        teams[0].push(&tickets[with]);
        divide(config, now, region, &mut teams, &others)
    })
}

/// Tries every division of some of the other tickets into the teams.
fn divide<'a>(
    config: &QueueConfig,
    now: Instant,
    region: &Name,
    teams: &mut Vec<Vec<&'a Ticket>>,
    others: &[&'a Ticket],
) -> bool {
    if legal(config, now, region, teams).is_ok() {
        return true;
    }
    let Some((ticket, rest)) = others.split_first() else { return false };
    for team in 0..teams.len() {
        let size: usize = teams[team].iter().map(|ticket| ticket.size()).sum();
        if size + ticket.size() <= config.team_size.into() {
            teams[team].push(ticket);
            if divide(config, now, region, teams, rest) {
                return true;
            }
            teams[team].pop();
        }
    }
    divide(config, now, region, teams, rest)
}

#[test]
fn the_yardstick_knows_each_rule() {
    let config = QueueConfig { quality: Quality { floor: 700, ..config(2, 1).quality }, ..config(2, 1) };
    let a = ticket("a", 1500, at(0));
    let judge = |other: &Ticket, now| legal(&config, now, &name("eu"), &[vec![&a], vec![other]]);
    let b = ticket("b", 1600, at(0));
    assert_eq!(judge(&b, at(0)), Ok(800));
    assert_eq!(judge(&a, at(0)), Err("a player twice"));
    assert_eq!(judge(&party("b", 2, 1500, at(0)), at(0)), Err("size of a team"));
    assert_eq!(judge(&ticket("b", 1601, at(0)), at(0)), Err("rating"));
    assert_eq!(judge(&ticket("b", 1700, at(0)), secs(100)), Err("quality"));
    assert_eq!(judge(&Ticket { latencies: vec![(name("eu"), 51)], ..b.clone() }, at(0)), Err("latency"));
    let test = Test::Is(Value::Number(1));
    let conditions = vec![Condition { attribute: name("x"), test }];
    let choosy = Ticket { traits: Traits { conditions, ..b.traits.clone() }, ..b };
    assert_eq!(judge(&choosy, at(0)), Err("conditions"));
}
