use super::*;
use crate::error::Kind;

#[test]
fn job_is_argument_then_environment_then_default() {
    let env = Environment::of([("STRATA_JOB", "from-env")]);
    assert_eq!(job(&env, Some("given")).unwrap().as_str(), "given");
    assert_eq!(job(&env, None).unwrap().as_str(), "from-env");
    assert_eq!(job(&Environment::of([]), None).unwrap().as_str(), "default");
    assert_eq!(job(&env, Some("a/b")).unwrap_err().kind, Kind::Invalid);
}

#[test]
fn state_directory_follows_the_documented_order() {
    let all = Environment::of([("STRATA_HOME", "/h"), ("XDG_STATE_HOME", "/x")]);
    assert_eq!(home(&all).unwrap(), PathBuf::from("/h"));
    assert_eq!(home(&Environment::of([("XDG_STATE_HOME", "/x")])).unwrap(), PathBuf::from("/x/strata"));
    assert!(
        home(&Environment::of([]).as_user(0)).unwrap().ends_with(".local/state/strata"),
        "as anyone else"
    );
    let listed_nowhere = Environment::of([("HOME", "/u")]).as_user(4_000_123);
    assert_eq!(home(&listed_nowhere).unwrap(), PathBuf::from("/u/.local/state/strata"));
    assert_eq!(home(&Environment::of([]).as_user(4_000_123)).unwrap_err().kind, Kind::NotFound);
}

#[test]
fn sockets_are_tried_in_the_documented_order_and_a_named_one_alone() {
    let env = Environment::of([("XDG_RUNTIME_DIR", "/run/user/7")]).as_user(7);
    let tried: Vec<_> = socket_candidates(&env, None).iter().map(|path| path.display().to_string()).collect();
    assert_eq!(
        tried,
        ["/run/user/7/strata/sidecar.sock", "/run/strata/sidecar.sock", "/tmp/strata-7/sidecar.sock"]
    );
    let env = Environment::of([("STRATA_SOCKET", "/s"), ("XDG_RUNTIME_DIR", "/run/user/7")]);
    assert_eq!(socket_candidates(&env, None), [PathBuf::from("/s")]);
    assert_eq!(socket_candidates(&env, Some(Path::new("/a"))), [PathBuf::from("/a")]);
}

#[test]
fn socket_path_that_the_kernel_refuses_is_invalid_with_its_length() {
    let long = format!("/tmp/{}", "x".repeat(103));
    let env = Environment::of([("STRATA_SOCKET", long.as_str())]);
    let error = socket(&env, None).unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.message.contains("108 bytes"), "{}", error.message);
    assert!(check_socket_path(Path::new(&long[..107])).is_ok());
}

#[test]
fn coordinator_is_argument_then_environment_then_endpoint_then_default() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let env = Environment::of([("STRATA_HOME", place.as_str())]);
    assert_eq!(coordinator(&env, None).unwrap(), DEFAULT_COORDINATOR);
    let endpoint =
        Endpoint::of("coordinator", "http://127.0.0.1:7".into(), "http://127.0.0.1:8".into(), None);
    endpoint.write(folder.path()).unwrap();
    assert_eq!(coordinator(&env, None).unwrap(), "http://127.0.0.1:7");
    let both = Environment::of([("STRATA_HOME", place.as_str()), ("STRATA_COORDINATOR", "10.0.0.1:9/")]);
    assert_eq!(coordinator(&both, None).unwrap(), "http://10.0.0.1:9");
    assert_eq!(coordinator(&both, Some("https://c:1")).unwrap(), "https://c:1");
    assert_eq!(
        coordinator(&both, Some("a:1/, https://b:1")).unwrap(),
        "http://a:1,https://b:1",
        "of a set all"
    );
    assert_eq!(coordinator(&both, Some("a:1,,b:1")).unwrap_err().kind, Kind::Invalid);
    assert_eq!(coordinator(&both, Some("ftp://c")).unwrap_err().kind, Kind::Invalid);
}

#[test]
fn endpoint_of_another_process_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mine = Endpoint::of("up", "http://a".into(), "http://b".into(), Some("/s".into()));
    mine.write(folder.path()).unwrap();
    assert_eq!(Endpoint::read(folder.path()).unwrap().unwrap(), mine);
    let theirs = Endpoint { pid: mine.pid + 1, ..mine.clone() };
    theirs.write(folder.path()).unwrap();
    mine.remove(folder.path()).unwrap();
    assert_eq!(Endpoint::read(folder.path()).unwrap().unwrap(), theirs);
    theirs.remove(folder.path()).unwrap();
    assert_eq!(Endpoint::read(folder.path()).unwrap(), None);
    std::fs::write(Endpoint::path(folder.path()), "{").unwrap();
    assert_eq!(Endpoint::read(folder.path()).unwrap_err().kind, Kind::Corrupt);
}

#[test]
fn private_places_of_two_jobs_never_meet_and_fit_a_socket() {
    let env = Environment::of([
        ("STRATA_HOME", "/h"),
        ("STRATA_SOCKET", "/tmp/s/sidecar.sock"),
        ("STRATA_ARENA_DIR", "/a"),
    ]);
    let places = |name: &str| private(&env, &name.parse().unwrap()).unwrap();
    let (one, other) = (places("one"), places("other"));
    assert_eq!(one.socket, PathBuf::from("/tmp/s/private-one.sock"));
    assert_eq!(one.arenas, PathBuf::from("/a/private/one"));
    assert!(one.socket != other.socket && one.home != other.home && one.arenas != other.arenas);
    let deep = format!("/tmp/{}/sidecar.sock", "d".repeat(70));
    let env = Environment::of([("STRATA_HOME", "/h"), ("STRATA_SOCKET", deep.as_str())]);
    let long = private(&env, &"j".repeat(64).parse().unwrap()).unwrap();
    assert!(long.socket.as_os_str().len() <= SOCKET_PATH_LIMIT, "{}", long.socket.display());
}

#[test]
fn memory_file_system_is_no_network() {
    assert!(refuse_network(Path::new("/"), "the log", "STRATA_HOME").is_ok());
    assert!(refuse_network(Path::new("/nowhere"), "the log", "STRATA_HOME").is_err());
}

#[test]
fn network_file_systems_are_known_by_their_magic() {
    assert_eq!(network_name(0x6969), Some("NFS"));
    assert_eq!(network_name(0xFF53_4D42), Some("CIFS"));
    assert_eq!(network_name(0x0102_1994), None, "tmpfs");
}
