//! Configuration: every key can be set from everywhere, and every mistake names its key.

use std::collections::BTreeMap;
use std::fs;

use super::*;

/// What must be set to run at all.
const REQUIRED: &[(&str, &str)] = &[
    ("HOLM_NODE_ID", "7"),
    ("HOLM_CLUSTER_ID", "demo"),
    ("HOLM_TLS_CA", "ca.pem"),
    ("HOLM_TLS_CERT", "node.pem"),
    ("HOLM_TLS_KEY", "node.key"),
];

fn parse(args: &[&str], env: &[(&str, &str)]) -> Result<Invocation, ConfigError> {
    let env: BTreeMap<&str, &str> = env.iter().copied().collect();
    let args = ["holmd"].iter().chain(args).copied();
    Invocation::parse(args, &|name| env.get(name).map(|value| (*value).to_owned()))
}

fn config(args: &[&str], env: &[(&str, &str)]) -> Config {
    let env: Vec<_> = REQUIRED.iter().chain(env).copied().collect();
    match parse(args, &env) {
        Ok(Invocation::Run(config)) => *config,
        other => panic!("{other:?}"),
    }
}

fn error(args: &[&str], env: &[(&str, &str)]) -> String {
    let env: Vec<_> = REQUIRED.iter().chain(env).copied().collect();
    parse(args, &env).unwrap_err().to_string()
}

/// Goal: the table fits the structs, and every default its own range.
/// Method: load with the required keys only.
#[test]
fn defaults_are_valid() {
    let config = config(&[], &[]);
    assert_eq!(config.node.id, NodeId(7));
    assert_eq!(config.store.sync, Sync::Always);
    assert_eq!(config.net.idle_timeout, Duration::from_secs(10));
    // Whoever says nothing is gone after half a minute, wherever it falls silent.
    let (net, patience) = (&config.net, Duration::from_secs(30));
    assert!(2 * net.handshake_timeout <= patience);
    assert!(net.stall_timeout + net.idle_timeout <= patience);
    assert!(!config.dev.enabled);
    for (key, names) in KEYS.iter().zip(keys::names()) {
        if let Some(default) = key.default {
            assert!(default.parse::<toml::Value>().is_ok(), "{}: {default}", names.dotted);
        }
    }
}

/// Goal: flag before environment before file before default, for every one of them.
#[test]
fn sources_are_laid_over_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holm.toml");
    fs::write(&path, "[limits]\ninbox_max = 100\nin_flight_max = 5000\n[tls]\nca = \"own.pem\"\n")
        .unwrap();
    let file = path.to_str().unwrap();
    let env: Vec<_> = REQUIRED.iter().copied().filter(|(name, _)| *name != "HOLM_TLS_CA").collect();
    let loaded = |args: &[&str], more: &[(&str, &str)]| {
        let env: Vec<_> = env.iter().chain(more).copied().collect();
        match parse(args, &env) {
            Ok(Invocation::Run(config)) => *config,
            other => panic!("{other:?}"),
        }
    };
    let from_file = loaded(&["--config", file], &[]);
    assert_eq!((from_file.limits.inbox_max, from_file.limits.in_flight_max), (100, 5000));
    assert_eq!(from_file.tls.ca, dir.path().join("own.pem"), "relative to the file");
    assert_eq!(from_file.tls.cert, PathBuf::from("node.pem"), "relative to the process");
    let var = ("HOLM_LIMITS_INBOX_MAX", "200");
    assert_eq!(loaded(&[], &[("HOLM_CONFIG", file), var]).limits.inbox_max, 200);
    let flagged = loaded(&["--config", file, "--limits-inbox-max", "300"], &[var]);
    assert_eq!(flagged.limits.inbox_max, 300);
}

/// Goal: every key has a variable and a flag. Method: set each to its default through both.
#[test]
fn every_key_can_be_overridden() {
    let unchanged = config(&[], &[]);
    for (key, names) in KEYS.iter().zip(keys::names()) {
        let Some(default) = key.default else { continue };
        let value = default.trim_matches('"');
        assert_eq!(config(&[], &[(&names.env, value)]), unchanged, "{}", names.env);
        assert_eq!(config(&[&format!("--{}", names.flag), value], &[]), unchanged);
    }
}

/// Goal: a mistake is refused with the key, what was given, and what may be. Method: one of each.
#[test]
fn mistakes_name_their_key() {
    let range = error(&["--limits-inbox-max", "0"], &[]);
    assert_eq!(range, "limits.inbox_max is 0 (flag), must be a whole number from 1 to 1048576");
    let kind = error(&[], &[("HOLM_NET_GSO", "yes")]);
    assert_eq!(kind, "net.gso is \"yes\" (environment), must be true or false");
    let word = error(&[], &[("HOLM_STORE_SYNC", "never")]);
    assert_eq!(word, "store.sync is \"never\" (environment), must be one of always, interval");
    let relation = error(&["--net-keepalive-ms", "5000"], &[]);
    assert_eq!(
        relation,
        "net.keepalive_ms is 5000, must be at most a third of net.idle_timeout_ms (10000)"
    );
    let missing = parse(&[], &[]).unwrap_err().to_string();
    assert_eq!(
        missing,
        "node.id is not set: set it in the file, as HOLM_NODE_ID or with --node-id"
    );
    assert!(matches!(parse(&["--no-such"], &[]), Err(ConfigError::Usage(_))));
    assert!(error(&["--config", "/no/such/file"], &[]).contains("holm config init"));
}

/// Goal: a file with a key that does not exist, or that is not TOML, is refused.
#[test]
fn unknown_keys_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holm.toml");
    let file = path.to_str().unwrap();
    for (text, name) in
        [("[limits]\ninbox = 1", "limits.inbox"), ("[limit]", "[limit]"), ("id = 1", "id")]
    {
        fs::write(&path, text).unwrap();
        let got = error(&["--config", file], &[]);
        assert!(got.contains(&format!("unknown key {name};")), "{got}");
    }
    fs::write(&path, "[limits").unwrap();
    assert!(error(&["--config", file], &[]).contains("is not TOML"));
}

/// Goal: `config init` prints a file that loads; `check` and `show` say what is in force.
#[test]
fn config_verbs_work() {
    let Ok(Invocation::Print(annotated)) = parse(&["config", "init"], &[]) else { panic!() };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holm.toml");
    fs::write(&path, &annotated).unwrap();
    let file = path.to_str().unwrap();
    assert_eq!(config(&["--config", file], &[]), config(&[], &[]));
    for key in KEYS {
        assert!(annotated.contains(&format!("{} =", key.name)), "{}", key.name);
    }
    let check = parse(&["config", "check", "--config", file], REQUIRED).unwrap();
    assert!(matches!(check, Invocation::Print(said) if said == "configuration is valid\n"));
    assert!(parse(&["config", "check", "--config", file], &[]).is_err());
    let show = ["config", "show", "--net-lanes-max", "3"];
    let Ok(Invocation::Print(shown)) = parse(&show, REQUIRED) else { panic!() };
    assert!(shown.contains("lanes_max = 3 # flag\n"), "{shown}");
    assert!(shown.contains("id = 7 # environment\n") && shown.contains("gso = true # default\n"));
}

/// Goal: the preset of low limits is itself possible.
#[test]
fn the_smallest_configuration_is_valid() {
    relations(&Config::test_min(NodeId(1), Path::new("/tmp"))).unwrap();
}

/// Goal: only what must be equal everywhere is in the fingerprint.
#[test]
fn the_fingerprint_covers_clock_skew_only() {
    let usual = config(&[], &[]).settings_fingerprint();
    assert_eq!(config(&["--net-lanes-max", "3"], &[]).settings_fingerprint(), usual);
    assert_ne!(config(&["--limits-max-clock-skew-ms", "3"], &[]).settings_fingerprint(), usual);
}

/// Goal: seeds are nodes with their addresses; what is none is refused with the shape it must have.
#[test]
fn seeds_are_nodes_with_addresses() {
    let seeds = |text| config(&["--cluster-seeds", text], &[]).cluster.seeds;
    assert_eq!(seeds(""), []);
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    let both = [(NodeId(1), addr("10.0.0.1:7400")), (NodeId(2), addr("[::1]:7"))];
    assert_eq!(seeds("1@10.0.0.1:7400, 2@[::1]:7"), both);
    for bad in
        ["10.0.0.1:7400", "0@10.0.0.1:7400", "1@host", "1@[::1]:7,1@[::1]:8", ",", "1@[::1]:7,"]
    {
        let refused = error(&["--cluster-seeds", bad], &[]);
        assert!(refused.ends_with(
            "must be a list of nodes ID@ADDRESS:PORT with commas between them, or empty"
        ));
    }
}

/// Goal: probes leave time for answers through others, and suspicions for objections.
#[test]
fn membership_keys_fit_each_other() {
    let refused = error(&["--membership-probe-timeout-ms", "800"], &[]);
    assert_eq!(
        refused,
        "membership.probe_timeout_ms is 800, must be at most half of membership.probe_interval_ms \
         (1500): the rest is for answers through others"
    );
    let refused = error(&["--membership-suspicion-ms", "1000"], &[]);
    assert!(refused.starts_with("membership.suspicion_ms is 1000, must be at least"));
}
