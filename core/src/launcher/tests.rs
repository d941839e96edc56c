//! Real processes: small shell scripts as ranks.

use std::path::Path;

use super::*;

fn options(folder: &Path, ranks: u32, script: &str) -> LaunchOptions {
    LaunchOptions {
        command: ["sh", "-c", script].into_iter().map(OsString::from).collect(),
        ranks,
        max_restarts: 0,
        log_dir: Some(folder.join("logs")),
        grace: Duration::from_secs(30),
        job: "t".parse().unwrap(),
        sockets: Vec::new(),
        sidecar: None,
        environment: vec![("FOLDER".into(), folder.into())],
    }
}

fn log(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join("logs").join(name)).unwrap()
}

#[tokio::test]
async fn every_rank_learns_its_place_and_its_output_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let script = "echo $RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $STRATA_JOB; printf tail";
    assert_eq!(launch(&options(folder.path(), 2, script)).await.unwrap(), 0);
    for rank in 0..2 {
        let said = log(folder.path(), &format!("rank-{rank}.0.log"));
        let mut lines: Vec<&str> = said.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, [format!("{rank} {rank} 2 2 127.0.0.1 t").as_str(), "tail"]);
    }
}

#[tokio::test]
async fn lost_rank_restarts_all_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let script = "echo started; test -e $FOLDER/second && exit 0; \
                  if [ $RANK = 0 ]; then touch $FOLDER/first; sleep 600; fi; \
                  until test -e $FOLDER/first; do sleep 0.01; done; touch $FOLDER/second; kill -9 $$";
    let mut options = options(folder.path(), 2, script);
    options.max_restarts = 1;
    assert_eq!(launch(&options).await.unwrap(), 0);
    for file in ["rank-0.0.log", "rank-1.0.log", "rank-0.1.log", "rank-1.1.log"] {
        assert_eq!(log(folder.path(), file), "started\n");
    }
}

#[tokio::test]
async fn used_up_restarts_end_with_the_first_failed_ranks_code() {
    let folder = tempfile::tempdir().unwrap();
    let exits = options(folder.path(), 2, "[ $RANK = 1 ] && exit 41; sleep 600");
    assert_eq!(launch(&exits).await.unwrap(), 41);
    let killed = options(folder.path(), 2, "[ $RANK = 0 ] && kill -9 $$; sleep 600");
    assert_eq!(launch(&killed).await.unwrap(), 128 + 9);
}

#[tokio::test]
async fn what_a_rank_leaves_behind_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let script = "sleep 600 >/dev/null 2>&1 & echo $! > $FOLDER/pid; exit 0";
    assert_eq!(launch(&options(folder.path(), 1, script)).await.unwrap(), 0);
    let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    while state().is_ok_and(|stat| !stat.contains(") Z ")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn missing_command_is_named_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path(), 1, "");
    options.command = vec!["/no/such/program".into()];
    let error = launch(&options).await.unwrap_err();
    assert_eq!(error.kind, crate::error::Kind::NotFound);
    assert!(error.message.contains("/no/such/program") && error.hint.is_some(), "{error}");
    options.command.clear();
    assert_eq!(launch(&options).await.unwrap_err().kind, crate::error::Kind::Invalid);
}
