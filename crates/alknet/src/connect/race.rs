//! Several attempts, each begun a moment after the last or when the last has failed
//! (Happy Eyeballs, RFC 8305).

use std::{pin::pin, time::Duration};

use futures_util::{
    future::{BoxFuture, Either, select},
    stream::{FuturesUnordered, StreamExt as _},
};

/// The head start of each attempt (RFC 8305, section 8).
const HEAD_START: Duration = Duration::from_millis(250);

/// The first success, or the first final failure, or the first failure of all; `None` if
/// there was nothing to try. Attempts that lose are dropped.
pub(super) async fn race<T, E>(
    attempts: Vec<BoxFuture<'_, Result<T, E>>>,
    is_final: impl Fn(&E) -> bool,
) -> Option<Result<T, E>> {
    let mut waiting = attempts.into_iter();
    let mut running = FuturesUnordered::from_iter(waiting.next());
    let mut first_failure = None;
    loop {
        let head_start = pin!(tokio::time::sleep(HEAD_START));
        match select(running.next(), head_start).await {
            Either::Left((Some(Ok(success)), _)) => return Some(Ok(success)),
            Either::Left((Some(Err(failure)), _)) if is_final(&failure) => {
                return Some(Err(failure));
            }
            Either::Left((Some(Err(failure)), _)) => {
                first_failure.get_or_insert(failure);
                running.extend(waiting.next());
            }
            Either::Left((None, _)) => return first_failure.map(Err),
            Either::Right(_) => running.extend(waiting.next()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    type Attempt = BoxFuture<'static, Result<&'static str, &'static str>>;

    fn after(millis: u64, result: Result<&'static str, &'static str>) -> Attempt {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            result
        })
    }

    async fn run(attempts: Vec<Attempt>) -> Option<Result<&'static str, &'static str>> {
        race(attempts, |error| *error == "final").await
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
}
