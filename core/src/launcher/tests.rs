//! Real processes: small shell scripts as ranks.

use std::path::Path;

use super::*;

fn options(folder: &Path, ranks: u32, script: &str) -> LaunchOptions {
    LaunchOptions {
        command: ["sh", "-c", script].into_iter().map(OsString::from).collect(),
        ranks,
        min_ranks: ranks,
        max_restarts: 0,
        grow_after: Duration::from_secs(600),
        standby: None,
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

/// One place fails until it is repaired: the others go on without it, and stop in good order once it is tried again.
#[tokio::test]
async fn a_place_that_fails_again_and_again_is_left_out_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let script = "echo $RANK of $WORLD_SIZE at $STRATA_PLACE sees $CUDA_VISIBLE_DEVICES; \
                  if [ $STRATA_PLACE = 1 ] && ! test -e $FOLDER/repaired; then exit 3; fi; \
                  [ $WORLD_SIZE = 3 ] && test -e $FOLDER/repaired && exit 0; \
                  trap 'exit 75' TERM; [ $WORLD_SIZE = 2 ] && touch $FOLDER/repaired; \
                  while :; do sleep 0.02; done";
    let mut options = options(folder.path(), 3, script);
    options.min_ranks = 2;
    options.max_restarts = 1;
    options.grow_after = Duration::from_secs(2);
    assert_eq!(launch(&options).await.unwrap(), 0);
    // Lost, lost again, without it, with it.
    assert!(log(folder.path(), "rank-1.2.log").starts_with("1 of 2 at 2 sees 0,2\n"));
    for rank in 0..3 {
        assert!(
            log(folder.path(), &format!("rank-{rank}.3.log"))
                .starts_with(&format!("{rank} of 3 at {rank} sees"))
        );
    }
    assert!(!folder.path().join("logs/rank-2.2.log").exists());
}

/// Whom SIGTERM would end before it saves is not asked: the place takes part when the ranks are started again anyhow.
#[tokio::test]
async fn ranks_that_do_not_save_when_told_to_stop_go_on_without_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let script = "[ $STRATA_PLACE = 0 ] && exit 3; sleep 2; echo end";
    let mut options = options(folder.path(), 2, script);
    (options.min_ranks, options.grow_after) = (1, Duration::from_millis(100));
    assert_eq!(launch(&options).await.unwrap(), 0);
    assert_eq!(log(folder.path(), "rank-0.1.log"), "end\n");
    assert!(!folder.path().join("logs/rank-0.2.log").exists());
}

/// The script stands for one that waits in `strata.connect`, as `strata._standby` does.
const WAITS: &str = "if [ -n \"$STRATA_STANDBY\" ]; then touch $FOLDER/waits.$RANK; \
                     called=$(head -c 1 /proc/self/fd/$STRATA_STANDBY); [ -n \"$called\" ] || exit 0; fi; ";

#[tokio::test]
async fn ranks_that_were_started_ahead_take_over_and_end_with_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "{WAITS} echo runs; if [ -z \"$called\" ]; then \
         until test -e $FOLDER/waits.0 && test -e $FOLDER/waits.1; do sleep 0.02; done; \
         [ $RANK = 1 ] && kill -9 $$; sleep 600; fi; rm -f $FOLDER/waits.$RANK; \
         until test -e $FOLDER/waits.$RANK; do sleep 0.02; done"
    );
    let mut options = options(folder.path(), 2, &script);
    (options.standby, options.max_restarts) = (Some(Duration::from_millis(50)), 1);
    assert_eq!(launch(&options).await.unwrap(), 0);
    for rank in 0..2 {
        assert_eq!(log(folder.path(), &format!("rank-{rank}.1.log")), "runs\n");
        assert_eq!(log(folder.path(), &format!("rank-{rank}.2.log")), "", "never called");
    }
}

/// A torch DataLoader takes the death of a worker for an error, which would end its rank before it has saved.
#[tokio::test]
async fn a_request_to_stop_reaches_the_rank_and_not_what_it_has_started() {
    let folder = tempfile::tempdir().unwrap();
    let worker = "trap 'touch $FOLDER/told' TERM; touch $FOLDER/works; while :; do sleep 0.02; done";
    let script = format!(
        "until test -e $FOLDER/works || [ $RANK = 0 ]; do sleep 0.02; done; [ $RANK = 1 ] && exit 7; \
         sh -c \"{worker}\" & trap 'sleep 0.2; touch $FOLDER/saved; exit 0' TERM; while :; do wait; done"
    );
    assert_eq!(launch(&options(folder.path(), 2, &script)).await.unwrap(), 7);
    assert!(folder.path().join("saved").exists() && !folder.path().join("told").exists());
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
    options.command = vec!["true".into()];
    options.min_ranks = 2;
    assert!(launch(&options).await.unwrap_err().message.contains("--min-nproc is 2"));
}
