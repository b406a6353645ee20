//! Several attempts, each begun a moment after the last or when the last has failed
//! (Happy Eyeballs, RFC 8305).

use std::{pin::pin, time::Duration};

use futures_util::{
    future::{BoxFuture, Either, select},
    stream::{FuturesUnordered, StreamExt as _},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// The head start of each attempt (RFC 8305, section 8).
const HEAD_START: Duration = Duration::from_millis(250);
/// How long a silent attempt goes on where others say that nobody is there. QUIC has sent its
/// first packet twice by then.
const GRACE: Duration = Duration::from_millis(1500);

/// What a failed attempt says of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is nothing more to try.
    Final,
    /// The address says that nobody is there.
    Nobody,
    /// Nothing.
    Unsure,
}

/// How all attempts failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost<E> {
    /// The final failure, or else the first.
    pub(super) failure: E,
    /// Whether no other attempt can do better.
    pub(super) is_final: bool,
}

/// The first success, or the first final failure, or the first failure of all; `None` if
/// there was nothing to try. Where each of `addresses` says that nobody is there and nothing
/// else was heard, the rest are given up soon. Attempts that lose are dropped.
pub(super) async fn race<T, E>(
    attempts: Vec<BoxFuture<'_, Result<T, E>>>,
    addresses: usize,
    judge: impl Fn(&E) -> Verdict,
) -> Option<Result<T, Lost<E>>> {
    let mut waiting = attempts.into_iter();
    let mut running = FuturesUnordered::from_iter(waiting.next());
    let (mut first_failure, mut empty, mut heard) = (None, 0, false);
    let mut given_up = None;
    loop {
        let head_start = pin!(sleep(HEAD_START));
        let next = select(running.next(), head_start);
        let next = match given_up {
            Some(at) => timeout_at(at, next).await.ok(),
            None => Some(next.await),
        };
        match next {
            Some(Either::Left((Some(Ok(success)), _))) => return Some(Ok(success)),
            Some(Either::Left((Some(Err(failure)), _))) => {
                match judge(&failure) {
                    Verdict::Final => return Some(Err(Lost { failure, is_final: true })),
                    Verdict::Nobody => empty += 1,
                    Verdict::Unsure => heard = true,
                }
                first_failure.get_or_insert(failure);
                running.extend(waiting.next());
                let nobody = empty >= addresses && !heard;
                given_up = nobody.then(|| given_up.unwrap_or_else(|| Instant::now() + GRACE));
            }
            Some(Either::Right(_)) => running.extend(waiting.next()),
            Some(Either::Left((None, _))) | None => {
                let is_final = given_up.is_some();
                return first_failure.map(|failure| Err(Lost { failure, is_final }));
            }
        }
    }
}

/// The success of either of two. The second begins when the first has failed, or after the
/// head start and then beside it. A final failure ends both; else they fail together, in this order.
pub(super) async fn in_turn<T, E>(
    former: impl Future<Output = Result<T, Lost<E>>>,
    latter: impl Future<Output = Result<T, Lost<E>>>,
    head_start: Duration,
) -> Result<T, (E, Option<E>)> {
    let (mut former, mut latter) = (pin!(former), pin!(latter));
    let (outcome, is_former) = match timeout(head_start, former.as_mut()).await {
        Ok(outcome) => (outcome, true),
        Err(_) => match select(former.as_mut(), latter.as_mut()).await {
            Either::Left((outcome, _)) => (outcome, true),
            Either::Right((outcome, _)) => (outcome, false),
        },
    };
    let one = match outcome {
        Err(lost) if !lost.is_final => lost.failure,
        outcome => return outcome.map_err(|lost| (lost.failure, None)),
    };
    let other = if is_former { latter.await } else { former.await };
    other.map_err(|other| match (other.is_final, is_former) {
        (true, _) => (other.failure, None),
        (false, true) => (one, Some(other.failure)),
        (false, false) => (other.failure, Some(one)),
    })
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    type Attempt = BoxFuture<'static, Result<&'static str, &'static str>>;

    fn after(millis: u64, result: Result<&'static str, &'static str>) -> Attempt {
        Box::pin(async move {
            sleep(Duration::from_millis(millis)).await;
            result
        })
    }

    fn judge(failure: &&'static str) -> Verdict {
        match *failure {
            "final" => Verdict::Final,
            "nobody" => Verdict::Nobody,
            _ => Verdict::Unsure,
        }
    }

    async fn run_at(
        addresses: usize,
        attempts: Vec<Attempt>,
    ) -> Option<Result<&'static str, Lost<&'static str>>> {
        race(attempts, addresses, judge).await
    }

    async fn run(attempts: Vec<Attempt>) -> Option<Result<&'static str, &'static str>> {
        run_at(1, attempts).await.map(|outcome| outcome.map_err(|lost| lost.failure))
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_wins_unless_it_is_slow_or_fails() {
        assert_eq!(run(vec![after(200, Ok("a")), after(0, Ok("b"))]).await, Some(Ok("a")));
        assert_eq!(run(vec![after(900, Ok("a")), after(0, Ok("b"))]).await, Some(Ok("b")));
        assert_eq!(run(vec![after(10, Err("x")), after(0, Ok("b"))]).await, Some(Ok("b")));
        assert_eq!(run(vec![Box::pin(pending()), after(0, Ok("b"))]).await, Some(Ok("b")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_final_failure_ends_it_and_else_the_first_one_is_told() {
        assert_eq!(run(vec![after(0, Err("final")), after(0, Ok("b"))]).await, Some(Err("final")));
        assert_eq!(run(vec![after(0, Err("x")), after(0, Err("y"))]).await, Some(Err("x")));
        assert_eq!(run(vec![]).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_is_the_silent_are_soon_given_up() {
        let nobody = || after(0, Err("nobody"));
        let silent = || -> Attempt { Box::pin(pending()) };
        let lost = |failure, is_final| Some(Err(Lost { failure, is_final }));
        let begun = Instant::now();
        assert_eq!(run_at(1, vec![silent(), nobody()]).await, lost("nobody", true));
        assert!(begun.elapsed() < Duration::from_secs(2));
        // Who answers late is heard, and so is who says something else.
        assert_eq!(run_at(1, vec![after(1600, Ok("a")), nobody()]).await, Some(Ok("a")));
        assert_eq!(run_at(1, vec![after(900, Err("x")), nobody()]).await, lost("nobody", false));
        // One address says nothing of another.
        let two = vec![silent(), nobody(), after(5000, Ok("b"))];
        assert_eq!(run_at(2, two).await, Some(Ok("b")));
    }

    async fn turns(
        former: (u64, Result<&'static str, &'static str>),
        latter: (u64, Result<&'static str, &'static str>),
    ) -> Result<&'static str, (&'static str, Option<&'static str>)> {
        let outcome = |(millis, outcome)| async move {
            let lost = |failure| Lost { failure, is_final: judge(&failure) == Verdict::Final };
            after(millis, outcome).await.map_err(lost)
        };
        in_turn(outcome(former), outcome(latter), Duration::from_secs(3)).await
    }

    #[tokio::test(start_paused = true)]
    async fn the_latter_runs_where_the_former_fails_and_beside_it_where_it_is_slow() {
        let begun = Instant::now();
        assert_eq!(turns((100, Err("x")), (100, Ok("b"))).await, Ok("b"));
        assert_eq!(begun.elapsed(), Duration::from_millis(200));
        assert_eq!(turns((2900, Ok("a")), (0, Ok("b"))).await, Ok("a"));
        assert_eq!(turns((9000, Ok("a")), (100, Ok("b"))).await, Ok("b"));
        assert_eq!(turns((4000, Ok("a")), (100, Err("y"))).await, Ok("a"));
        for (former, latter) in [(100, 100), (4000, 5000), (9000, 100)] {
            let both = turns((former, Err("x")), (latter, Err("y"))).await;
            assert_eq!(both, Err(("x", Some("y"))));
        }
        assert_eq!(turns((100, Err("final")), (0, Ok("b"))).await, Err(("final", None)));
        assert_eq!(turns((9000, Ok("a")), (0, Err("final"))).await, Err(("final", None)));
    }
}
