//! Layers, and the texts of errors.

use std::time::Duration;

use skirmish_core::config::Problem;

use super::*;

fn file(text: &str) -> Sources {
    Sources { file: Some(("skirmish.toml".into(), text.to_owned())), ..Sources::default() }
}

fn with_environment(mut sources: Sources, variables: &[(&str, &str)]) -> Sources {
    sources.environment = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    sources
}

fn with_flag(mut sources: Sources, key: &str, value: &str) -> Sources {
    sources.flags.push((key.to_owned(), value.to_owned(), "--set".to_owned()));
    sources
}

fn error(sources: &Sources) -> String {
    let error = Config::load(sources).expect_err("must be refused").to_string();
    assert!(!error.contains('\n'), "more than one line: {error}");
    error
}

#[test]
fn defaults_are_the_cores_and_are_valid() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.core(), skirmish_core::config::Config::default());
}

#[test]
fn later_sources_win() {
    let text = "[heartbeat]\ninterval = '20s'\nclose_after = 5\n[rooms]\nmembers = 7\n";
    let variables = [
        ("SKIRMISH_HEARTBEAT__INTERVAL", "12s"),
        ("SKIRMISH_RATES__RELIABLE__BURST", "999"),
        ("SKIRMISH_PORT", "tcp://10.0.0.1:9500"),
        ("PATH", "/bin"),
    ];
    let sources = with_flag(with_environment(file(text), &variables), "heartbeat.interval", "11s");
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.heartbeat.interval, Duration::from_secs(11), "flag over variable over file");
    assert_eq!(config.rates.reliable, RateLimit { per_second: 60, burst: 999 }, "variable over default");
    assert_eq!((config.heartbeat.close_after, config.rooms.members), (5, 7), "file over default");
}

#[test]
fn values_of_variables_and_flags_are_toml_or_text() {
    let variables = [
        ("SKIRMISH_AUTH__ORIGINS", r#"["https://a.example", "https://b.example"]"#),
        ("SKIRMISH_AUTH__AUDIENCE", "my game"),
        ("SKIRMISH_LISTEN__ADDRESS", "[::1]:9"),
        ("SKIRMISH_ADMIN__ENABLED", "false"),
    ];
    let config = Config::load(&with_environment(Sources::default(), &variables)).unwrap();
    assert_eq!(config.auth.origins.len(), 2);
    assert_eq!(config.auth.audience, "my game");
    assert_eq!(config.listen.address.to_string(), "[::1]:9");
    assert!(!config.admin.enabled);
}

#[test]
fn errors_name_the_key_and_who_set_it() {
    let cases = [
        (file("[rooms]\nmembers = 'many'"), "skirmish.toml: rooms.members: ", "expected usize"),
        (file("[rooms]\nmebmers = 1"), "skirmish.toml: rooms.mebmers: ", "unknown field `mebmers`"),
        (file("[room]\nmembers = 1"), "skirmish.toml: room: ", "unknown field `room`"),
        (file("[rooms\n"), "skirmish.toml: ", "line 1: "),
        (file("[heartbeat]\ninterval = '15 parsecs'"), "skirmish.toml: heartbeat.interval: ", "parsecs"),
        (file("[listen]\naddress = 'nowhere'"), "skirmish.toml: listen.address: ", "socket address"),
        (file("[frames]\nframe_bytes = 100"), "skirmish.toml: frames.frame_bytes: ", "body_bytes"),
        (file("[[auth.keys]]\nid = 'a'"), "skirmish.toml: auth.keys[0]: ", "secret_file"),
        (
            file("[[auth.keys]]\nid = 'a'\nsecret = 'x'\ntypo = 1"),
            "skirmish.toml: auth.keys[0].typo: ",
            "unknown",
        ),
        (
            with_environment(Sources::default(), &[("SKIRMISH_ROOMS__MEMBERS", "many")]),
            "SKIRMISH_ROOMS__MEMBERS: rooms.members: ",
            "expected usize",
        ),
        (
            with_environment(Sources::default(), &[("SKIRMISH_ROOMS__MEBMERS", "1")]),
            "SKIRMISH_ROOMS__MEBMERS: rooms.mebmers: ",
            "unknown field",
        ),
        (
            with_flag(Sources::default(), "rates.bytes.burst", "1"),
            "--set: rates.bytes.burst: ",
            "frame_bytes",
        ),
        (
            with_flag(Sources::default(), "rooms.tombstone_horizon", "1s"),
            "--set: rooms.tombstone_horizon: ",
            "ttl",
        ),
        (with_flag(Sources::default(), "room.members", "1"), "--set: room: ", "unknown field `room`"),
        (with_flag(file("rooms = 1"), "rooms.members", "1"), "--set: rooms.members: ", "not a section"),
        (with_flag(Sources::default(), "rooms..members", "1"), "--set: rooms..members: ", "not a key"),
        (
            with_flag(Sources::default(), "auth.origins", "['game.example/']"),
            "--set: auth.origins[0]: ",
            "origin",
        ),
        (with_flag(Sources::default(), "tls.key_file", "k.pem"), "--set: tls: ", "certificate_file"),
        (
            file("[registry]\nkind = 'etcd'\n[cluster.link]\naddress = '10.0.0.1:9700'"),
            "skirmish.toml: cluster.link.address: ",
            "cluster.insecure = true",
        ),
        (file("[cluster.lnik]"), "skirmish.toml: cluster.lnik: ", "unknown field `lnik`"),
        (
            file("[[matchmaking.queues]]\nmode = 'duel'\nteams = 2\nteam_size = 0\nregions = ['eu']"),
            "skirmish.toml: matchmaking.queues[0].team_size: ",
            "from 1 to 32",
        ),
        (file("[[matchmaking.queues]]\nmode = 'duel'"), "skirmish.toml: matchmaking.queues[0]: ", "`teams`"),
        (
            with_flag(
                Sources::default(),
                "matchmaking.queues",
                "[{ mode = 'duel', teams = 2, team_size = 1, regions = ['eu'], rating = { strat = 1 } }]",
            ),
            "--set: matchmaking.queues[0].rating.strat: ",
            "unknown field",
        ),
    ];
    for (sources, start, part) in cases {
        let error = error(&sources);
        assert!(error.starts_with(start), "`{error}` should start with `{start}`");
        assert!(error.contains(part), "`{error}` should say `{part}`");
    }
}

#[test]
fn what_is_printed_loads_again_and_hides_secrets() {
    let secret = "do-not-show-this-to-anyone-at-all";
    let text = format!(
        "[[auth.keys]]\nid = 'a'\nsecret = '{secret}'\n[heartbeat]\ninterval = '1m 5s'\n\
         [[matchmaking.queues]]\nmode = 'duel'\nteams = 2\nteam_size = 1\nregions = ['eu']\n"
    );
    let config = Config::load(&file(&text)).unwrap();
    let printed = config.to_toml().unwrap();
    assert!(!printed.contains(secret) && !format!("{config:?}").contains(secret));
    assert!(printed.contains("[redacted]"));
    let mut again = Config::load(&file(&printed)).unwrap();
    again.auth.keys = config.auth.keys.clone();
    assert_eq!(again, config);
}

#[test]
fn what_the_machines_refuse_is_refused_before_they_are_made() {
    let wrong = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap_err()
    };
    let is = |key: &str, problem: Problem| (key.to_owned(), problem.to_string());
    // A snapshot of so many members does not fit into a frame, or no decoder accepts it.
    assert_eq!(wrong(|c| c.rooms.members = 2_000), is("frames.frame_bytes", Problem::Snapshot));
    let too_many = |config: &mut Config| {
        config.rooms.members = 5_000;
        config.frames.frame_bytes = 1 << 20;
        config.rooms.window_bytes = 1 << 20;
    };
    assert_eq!(wrong(too_many), is("rooms.members", Problem::Range(1, 4096)));
    // A connection cannot be dead sooner than unhealthy.
    assert_eq!(
        wrong(|config| config.heartbeat.unhealthy_after = config.heartbeat.close_after),
        is("heartbeat.close_after", Problem::AboveOf("heartbeat.unhealthy_after"))
    );
    assert_eq!(Config::default().core().validate(), Ok(()));
}

#[test]
fn it_is_known_what_was_set() {
    let key = "connections.total";
    let sets = |sources: Sources| sources.sets(key);
    assert!(!sets(Sources::default()) && !sets(file("[connections]\nper_address = 5")));
    assert!(sets(file("[connections]\ntotal = 18000")), "though it is the default");
    assert!(sets(with_flag(Sources::default(), key, "5")));
    assert!(sets(with_flag(Sources::default(), "connections", "{ total = 5 }")));
    assert!(sets(with_environment(Sources::default(), &[("SKIRMISH_CONNECTIONS__TOTAL", "5")])));
    let others = [("SKIRMISH_CONNECTIONS__TOTALS", "5"), ("CONNECTIONS__TOTAL", "5")];
    assert!(!sets(with_environment(Sources::default(), &others)));
}

#[test]
fn the_machines_name_keys_as_the_file_has_them() {
    let breaks: [fn(&mut Config); 27] = [
        |c| c.connections.total = 0,
        |c| c.connections.per_address = 0,
        |c| c.connections.unauthenticated = 0,
        |c| c.connections.ipv6_prefix = 129,
        |c| c.heartbeat.jitter_percent = 51,
        |c| c.heartbeat.unhealthy_after = 0,
        |c| c.heartbeat.close_after = 0,
        |c| c.rates.reliable.burst = 0,
        |c| c.rates.latest.burst = 0,
        |c| c.rates.control.per_second = 0,
        |c| c.rates.bytes.burst = 1,
        |c| c.rates.logins.burst = 0,
        |c| c.rates.logins_per_address.per_second = 0,
        |c| c.sessions.rooms = 0,
        |c| c.rooms.total = 0,
        |c| c.rooms.members = 0,
        |c| c.rooms.window_entries = 0,
        |c| c.rooms.latest_bytes = 0,
        |c| c.rooms.turn_time = Duration::from_millis(1),
        |c| c.rooms.tombstone_horizon = Duration::ZERO,
        |c| c.frames.body_bytes = c.frames.frame_bytes,
        |c| c.cluster.node_ttl = Duration::from_millis(3_500),
        |c| c.cluster.room_ttl = Duration::from_millis(60_500),
        |c| c.cluster.heartbeat.jitter_percent = 51,
        |c| c.cluster.heartbeat.unhealthy_after = 0,
        |c| c.cluster.heartbeat.close_after = 0,
        |c| c.matchmaking.default_rating = 1_000_001,
    ];
    let printed: toml::Table = Config::default().to_toml().unwrap().parse().unwrap();
    for change in breaks {
        let mut config = Config::default();
        change(&mut config);
        let error = config.core().validate().unwrap_err();
        let mut parts = error.key.split('.');
        let section = parts.next().and_then(|first| printed.get(first));
        let value = parts.fold(section, |section, part| section?.get(part));
        assert!(value.is_some(), "the file has no {}", error.key);
        assert_eq!(config.validate(), Err((error.key.into_owned(), error.problem.to_string())));
    }
}
