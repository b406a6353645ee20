//! The end of a terminal's output.

use std::{io, time::Duration};

use tokio::time::{Instant, timeout};

/// How long a terminal must be silent for its output to be over.
const SILENCE: Duration = Duration::from_millis(100);
/// How long what others write is waited for, where there is no silence.
const LONGEST: Duration = Duration::from_secs(1);
/// More than a terminal holds, in bytes: Linux has room for 20 KiB.
const HELD: usize = 64 * 1024;

/// What a terminal still gives when its program has exited and others keep it open.
///
/// All that the program itself wrote is in the terminal by then. So the output is over once
/// there is silence, or more was read than the terminal holds, or it was waited for long
/// enough. Only waiting for the terminal counts: whoever takes the output may take their time.
///
/// ```
/// # use alknet_host::Rest;
/// # use tokio::io::{AsyncRead, AsyncReadExt};
/// # async fn run(mut terminal: impl AsyncRead + Unpin) -> std::io::Result<()> {
/// let (mut rest, mut buffer) = (Rest::default(), [0; 1024]);
/// while let len @ 1.. = rest.read(terminal.read(&mut buffer)).await? {
///     println!("{:?}", &buffer[..len]);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Rest {
    waited: Duration,
    read: usize,
}

impl Rest {
    /// What this read of the terminal gives, in bytes; 0 when the output is over. As cancel
    /// safe as the read.
    pub async fn read(
        &mut self,
        reading: impl Future<Output = io::Result<usize>>,
    ) -> io::Result<usize> {
        let left = LONGEST.saturating_sub(self.waited);
        if left.is_zero() || self.read >= HELD {
            return Ok(0);
        }
        let began = Instant::now();
        let read = timeout(SILENCE.min(left), reading).await.unwrap_or(Ok(0));
        self.waited += began.elapsed();
        self.read += read.as_ref().copied().unwrap_or_default();
        read
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _, os::fd::OwnedFd};

    use tokio::{
        io::AsyncReadExt as _,
        time::{sleep, timeout},
    };

    use super::*;
    use crate::{Size, Terminal};

    async fn after(wait: Duration, len: usize) -> io::Result<usize> {
        sleep(wait).await;
        Ok(len)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_the_end() {
        let mut rest = Rest::default();
        assert_eq!(rest.read(after(SILENCE / 2, 10)).await.unwrap(), 10);
        assert_eq!(rest.read(after(SILENCE * 2, 10)).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_writes_on_is_waited_for_so_long() {
        let (mut rest, began) = (Rest::default(), Instant::now());
        while rest.read(after(SILENCE / 5, 1)).await.unwrap() > 0 {}
        assert_eq!(began.elapsed(), LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_taker_gets_all_that_there_is() {
        let mut rest = Rest::default();
        let mut taken = 0;
        while let len @ 1.. = rest.read(after(Duration::ZERO, 1024)).await.unwrap() {
            taken += len;
            sleep(LONGEST * 10).await;
        }
        assert_eq!(taken, HELD);
    }

    /// What a terminal holds comes from it whole, however much it is.
    #[tokio::test]
    async fn a_terminal_holds_less_than_is_read() {
        let (mut terminal, child) = Terminal::open(Size::UNKNOWN, |_| {}).unwrap();
        let writer: OwnedFd = child;
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let (mut writer, mut written) = (File::from(writer), 0);
        // The kernel moves what it holds from one buffer to another by itself.
        for _ in 0..10 {
            while let Ok(len) = writer.write(&[b'\n'; 100]) {
                written += len;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let (mut rest, mut read, mut buffer) = (Rest::default(), 0, [0; 512]);
        let all = async {
            while let len @ 1.. = rest.read(terminal.read(&mut buffer)).await.unwrap() {
                read += len;
            }
        };
        timeout(Duration::from_secs(60), all).await.unwrap();
        // Each end of a line is two bytes.
        assert_eq!(read, written * 2);
        assert!(read > 4096 && read < HELD / 2, "{read}");
    }
}
