use std::time::Duration;

use super::*;
use crate::config::{Setting, example};
use crate::error::Kind;

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn load(text: &str, env: &[(&str, &str)], flags: &[Flag]) -> Result<Loaded> {
    let (_folder, path) = written(text);
    Loaded::load(&Environment::of(env.iter().copied()), Some(&path), flags)
}

#[test]
fn every_default_is_readable() {
    let loaded = load("", &[], &[]).unwrap();
    assert_eq!(loaded.config.coordinator.lease, Duration::from_secs(10));
    assert_eq!(loaded.config.sidecar.memory_limit.0, 256 << 20);
    assert_eq!(loaded.config.sidecar.arena_ttl, Duration::from_secs(24 * 3600));
    assert_eq!(loaded.config.checkpoint.keep_last, 0);
    assert_eq!(loaded.origin("coordinator", "lease").unwrap(), "default");
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let file = "[checkpoint]\nkeep_last = 1\n";
    let env = [("STRATA_KEEP_LAST", "2")];
    let flag = [Flag::new("--keep-last", "checkpoint.keep_last", "3")];
    let seen = |env: &[(&str, &str)], flags: &[Flag]| {
        let loaded = load(file, env, flags).unwrap();
        (loaded.config.checkpoint.keep_last, loaded.origin("checkpoint", "keep_last").unwrap())
    };
    let (value, origin) = seen(&[], &[]);
    assert_eq!(value, 1);
    assert!(origin.ends_with("config.toml:2"), "{origin}");
    assert_eq!(seen(&env, &[]), (2, "environment STRATA_KEEP_LAST".into()));
    assert_eq!(seen(&env, &flag), (3, "flag --keep-last".into()));
}

#[test]
fn port_flag_keeps_the_address_of_the_file() {
    let flags = [Flag::new("--port", "coordinator.listen", ":0")];
    let loaded = load("[coordinator]\nlisten = \"0.0.0.0:7000\"\n", &[], &flags).unwrap();
    assert_eq!(loaded.config.coordinator.listen.to_string(), "0.0.0.0:0");
}

#[test]
fn unknown_key_names_file_line_and_suggestion() {
    let error = load("# a\n[coordinator]\nleese = \"3s\"\n", &[], &[]).unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.message.contains("config.toml:3: [coordinator] leese: unknown key"), "{}", error.message);
    assert_eq!(error.hint.unwrap(), "did you mean \"lease\"?");
}

#[test]
fn key_in_the_wrong_section_is_found_in_its_own() {
    let error = load("[job]\nkeep_last = 3\n", &[], &[]).unwrap_err();
    assert_eq!(error.hint.unwrap(), "did you mean \"[checkpoint] keep_last\"?");
    let error = load("keep_last = 3\n", &[], &[]).unwrap_err();
    assert_eq!(error.hint.unwrap(), "keep_last belongs into the section [checkpoint]");
}

#[test]
fn unknown_section_is_suggested() {
    let error = load("[sidecars]\nslots = 3\n", &[], &[]).unwrap_err();
    assert!(error.message.contains("config.toml:1: [sidecars]: unknown section"), "{}", error.message);
    assert_eq!(error.hint.unwrap(), "did you mean [sidecar]?");
}

#[test]
fn wrong_type_says_what_to_write() {
    let error = load("[coordinator]\nlease = 10\n", &[], &[]).unwrap_err();
    assert!(
        error.message.contains("config.toml:2: [coordinator] lease: wrong type, found an integer"),
        "{}",
        error.message
    );
    assert!(error.hint.unwrap().contains("\"20s\""));
    assert!(load("[coordinator]\ninsecure = \"yes\"\n", &[], &[]).is_err());
    assert!(load("[checkpoint]\nkeep_last = -1\n", &[], &[]).is_err());
}

#[test]
fn bad_duration_is_named_with_its_source() {
    let error = load("[coordinator]\nlease = \"ten\"\n", &[], &[]).unwrap_err();
    assert!(error.message.contains("config.toml:2: [coordinator] lease = \"ten\""), "{}", error.message);
    let error = load("", &[("STRATA_LEASE", "ten")], &[]).unwrap_err();
    assert!(error.message.contains("STRATA_LEASE=\"ten\""), "{}", error.message);
    let error = load("", &[], &[Flag::new("--lease", "coordinator.lease", "ten")]).unwrap_err();
    assert!(error.message.contains("--lease \"ten\""), "{}", error.message);
}

#[test]
fn file_that_is_no_toml_names_the_line() {
    let error = load("[coordinator]\nlease = = 3\n", &[], &[]).unwrap_err();
    assert!(error.message.contains("config.toml:2: not TOML"), "{}", error.message);
}

#[test]
fn missing_named_file_is_not_found_and_missing_usual_file_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.toml");
    let error = Loaded::load(&Environment::of([]), Some(&missing), &[]).unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    let place = folder.path().display().to_string();
    let env = Environment::of([("XDG_CONFIG_HOME", place.as_str())]);
    assert!(Loaded::load(&env, None, &[]).is_ok());
    std::fs::create_dir(folder.path().join("strata")).unwrap();
    std::fs::write(folder.path().join("strata/config.toml"), "[checkpoint]\nkeep_last = 9\n").unwrap();
    assert_eq!(Loaded::load(&env, None, &[]).unwrap().config.checkpoint.keep_last, 9);
}

#[test]
fn check_lists_everything_that_is_wrong() {
    let (_folder, path) = written("[coordinator]\nleese = 3\nlease = \"x\"\n[nothing]\n");
    assert_eq!(check(&Environment::of([]), Some(&path)).unwrap().len(), 3);
}

#[test]
fn example_changes_nothing_as_it_stands_and_every_line_of_it_is_accepted() {
    let text = example();
    let loaded = load(&text, &[], &[]).unwrap();
    let plain = load("", &[], &[]).unwrap();
    assert_eq!(format!("{:?}", loaded.config), format!("{:?}", plain.config));
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let all = load(&uncommented, &[], &[]).unwrap();
    for section in SECTIONS {
        for key in section.keys {
            assert!(text.contains(&format!("\n#{} = ", key.name)), "{} is missing", key.name);
            assert!(text.contains(key.env), "{} is missing", key.env);
            assert!(all.origin(section.name, key.name).unwrap().contains("config.toml:"), "{}", key.name);
        }
    }
}

#[test]
fn environment_names_are_not_used_twice() {
    let mut names: Vec<_> = SECTIONS.iter().flat_map(|section| section.keys).map(|key| key.env).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn secrets_are_never_shown() {
    let env = [("AWS_SECRET_ACCESS_KEY", "hunter2"), ("STRATA_STORE", "s3://b/p")];
    let loaded = load("", &env, &[]).unwrap();
    let all = format!("{}{}{:?}", loaded.show(), loaded.show_json(), loaded);
    assert!(!all.contains("hunter2"));
    assert!(loaded.show().contains("url = \"s3://b/p\""), "{}", loaded.show());
    assert_eq!(loaded.show_json()["schema"], 1);
    assert_eq!(loaded.config.store.secret_access_key.unwrap().0, "hunter2");
}

#[test]
fn shown_configuration_is_a_readable_file() {
    let loaded = load("[coordinator]\nlease = \"1h 3s\"\n", &[], &[]).unwrap();
    let again = load(&loaded.show(), &[], &[]).unwrap();
    assert_eq!(again.config.coordinator.lease, Duration::parse("1h 3s").unwrap());
}

#[test]
fn values_that_cannot_work_are_named_where_they_were_given() {
    let error = load("[sidecar]\nslots = 1\n", &[], &[]).unwrap_err();
    assert!(error.message.contains("config.toml:2: [sidecar] slots") && error.hint.is_some(), "{error}");
    let flag = Flag::new("--memory-limit", "sidecar.memory_limit", "1");
    assert!(load("", &[], &[flag]).unwrap_err().message.contains("--memory-limit"));
    assert!(load("", &[("STRATA_LOG", "loud")], &[]).unwrap_err().message.contains("STRATA_LOG"));
}

#[test]
fn file_that_is_no_text_and_a_folder_are_invalid() {
    let (folder, path) = written("");
    std::fs::write(&path, b"[log]\nlevel = \"\xff\"\n").unwrap();
    let error = check(&Environment::of([]), Some(&path)).unwrap_err();
    assert_eq!(error.kind, crate::error::Kind::Invalid);
    assert!(error.message.contains("config.toml:2: it is not UTF-8"), "{error}");
    let error = check(&Environment::of([]), Some(folder.path())).unwrap_err();
    assert!(error.kind == crate::error::Kind::Invalid && error.message.contains("directory"), "{error}");
}

const TARGETS: &str = "[store]\nurl = \"/fast\"\nregion = \"r\"\n\n[[store.target]]\nurl = \"s3://b/p\"\nname = \"remote\"\n\
                       keep_last = 5\nkeep_every = \"1h\"\nsecret_access_key = \"hunter2\"\n\n[[store.target]]\nurl = \"/cold\"\n";

#[test]
fn targets_are_read_in_order_and_shown_as_they_can_be_read_again() {
    let loaded = load(TARGETS, &[], &[]).unwrap();
    for loaded in [load(&loaded.show().replace("(set)", "hunter2"), &[], &[]).unwrap(), loaded] {
        let [remote, cold] = &loaded.config.targets[..] else { panic!("{:?}", loaded.config.targets) };
        assert_eq!((remote.name(), remote.keep_last, remote.hold), ("remote", 5, 2));
        assert_eq!(remote.keep_every, Some(Duration::from_secs(3600)));
        assert_eq!((cold.name(), cold.keep_last), ("/cold", 0));
        let reached = remote.reached_as(&loaded.config.store);
        assert_eq!(
            (reached.region.as_deref(), reached.secret_access_key.unwrap().0.as_str()),
            (Some("r"), "hunter2")
        );
        assert!(!format!("{}{}{loaded:?}", loaded.show(), loaded.show_json()).contains("hunter2"));
        assert_eq!(loaded.show_json()["targets"][0]["name"], "remote");
    }
}

#[test]
fn what_is_wrong_with_a_target_is_named_with_its_line() {
    for (text, line, said) in [
        ("[[store.target]]\nkeep_last = 3\n", 1, "it has no url"),
        ("[[store.target]]\nurl = \"/a\"\nkeep_lst = 3\n", 3, "unknown key"),
        ("[[store.target]]\nurl = \"/a\"\n[[store.target]]\nurl = \"/a\"\n", 3, "another one called"),
        ("[[store.target]]\nurl = \"/a\"\nkeep_every = \"soon\"\n", 3, "keep_every"),
        ("[store]\ntarget = \"/a\"\n", 2, "a list of tables"),
    ] {
        let error = load(text, &[], &[]).unwrap_err();
        assert!(error.message.contains(&format!("config.toml:{line}: ")), "{error}");
        assert!(error.message.contains(said) && error.hint.is_some(), "{error}");
    }
}
