//! How slowly somebody may send.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::LfsError;

/// So many bytes have to come in each of these times.
const LEAST: u64 = 60 << 10;
const TIME: Duration = Duration::from_secs(60);

/// What comes of somebody's bytes, and how long they are waited for. What the node itself does
/// meanwhile takes nothing of their time.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waited: Duration,
    came: u64,
}

impl Pace {
    /// Waits for what comes next, if it comes in time. As cancel safe as that.
    pub(super) async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Result<T, LfsError> {
        let begun = Instant::now();
        let next = timeout(TIME.saturating_sub(self.waited), next).await;
        self.waited += begun.elapsed();
        next.map_err(|_| LfsError::Stalled)
    }

    /// So many bytes have come.
    pub(super) fn came(&mut self, bytes: u64) {
        self.came = self.came.saturating_add(bytes);
        if self.came >= LEAST {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    /// How long somebody keeps on who sends so much each time.
    async fn lasts(bytes: u64, each: Duration) -> Duration {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        while begun.elapsed() < Duration::from_secs(3600) {
            if pace.wait(sleep(each)).await.is_err() {
                break;
            }
            pace.came(bytes);
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_little_by_little_is_late() {
        let second = Duration::from_secs(1);
        assert_eq!(lasts(1 << 20, 61 * second).await, TIME);
        assert_eq!(lasts(1, 59 * second).await, TIME);
        assert_eq!(lasts(500, second).await, TIME);
        assert!(lasts(1100, second).await >= Duration::from_secs(3600));
        assert!(lasts(1 << 20, 50 * second).await >= Duration::from_secs(3600));
        // Much at once buys no more than a minute.
        let mut pace = Pace::default();
        pace.came(1 << 40);
        assert!(pace.wait(sleep(61 * second)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_node_s_own_time_is_not_theirs() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            pace.wait(async {}).await.unwrap();
            sleep(TIME).await;
        }
    }
}
