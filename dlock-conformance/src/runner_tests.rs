use super::*;
use crate::stores::Memory;
use crate::target::{Link, Need};

fn memory() -> Arc<dyn Target> {
    Arc::new(Memory::default())
}

fn outcome(case: &Case) -> Outcome {
    run_one(&memory(), case).outcome
}

#[test]
fn a_failure_shows_its_history() {
    let case = Case::new("FAIR/fails", "", |scene: Scene| async move {
        scene.history().note("somebody", "does something");
        Err(Failure::new("it is wrong"))
    });
    let Outcome::Failed { failure, history } = outcome(&case) else {
        panic!("it did not fail");
    };
    assert_eq!(failure, "it is wrong");
    assert!(history.contains("somebody  does something"), "{history}");
}

#[test]
fn a_panic_is_a_failure() {
    let case = Case::new("FAIR/panics", "", |_| async { panic!("at {}", 17) });
    let Outcome::Failed { failure, .. } = outcome(&case) else {
        panic!("it did not fail");
    };
    assert_eq!(failure, "a panic: at 17");
}

#[test]
fn the_history_is_checked_after_a_case_that_passes() {
    let case = Case::new("FAIR/overlaps", "", |scene: Scene| async move {
        let token = dlock_core::FencingToken::from_order(1);
        for _ in 0..2 {
            scene
                .history()
                .granted("somebody", "a", dlock_core::Mode::Exclusive, token);
        }
        Ok(())
    });
    assert!(matches!(outcome(&case), Outcome::Failed { .. }));
}

#[test]
fn what_a_target_lacks_is_ignored_and_not_passed() {
    #[derive(Debug)]
    struct Bare;
    #[dlock_core::async_trait]
    impl Target for Bare {
        fn name(&self) -> &str {
            "bare"
        }
        async fn link(&self) -> Verdict<Link> {
            Err(Failure::new("not needed"))
        }
    }
    let bare: Arc<dyn Target> = Arc::new(Bare);
    for need in Need::ALL {
        let case = Case::new("FAIR/needs", "", |_| async { Ok(()) }).needs(need);
        let Outcome::Ignored(reason) = run_one(&bare, &case).outcome else {
            panic!("it was not ignored");
        };
        assert!(reason.starts_with("bare has no "), "{reason}");
        assert!(matches!(
            outcome(&case),
            Outcome::Passed | Outcome::Ignored(_)
        ));
    }
}

#[test]
fn cases_are_returned_in_their_own_order() {
    let paces = [
        Pace::Any,
        Pace::Any,
        Pace::Any,
        Pace::Timed,
        Pace::Alone,
        Pace::Alone,
    ];
    let cases: Vec<Case> = paces
        .into_iter()
        .enumerate()
        .map(|(number, pace)| {
            let pause = Duration::from_millis(10 * (paces.len() - number) as u64);
            Case::new(format!("FAIR/{number}"), "", move |_| async move {
                tokio::time::sleep(pause).await;
                Ok(())
            })
            .pace(pace)
        })
        .collect();
    let finished = run_all(&memory(), &cases, |_| {});
    let order: Vec<&str> = finished.iter().map(|done| done.case.as_str()).collect();
    assert_eq!(
        order,
        ["FAIR/0", "FAIR/1", "FAIR/2", "FAIR/3", "FAIR/4", "FAIR/5"]
    );
}
