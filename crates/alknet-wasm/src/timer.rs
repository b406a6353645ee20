//! Deadlines from the browser's clock: tokio has none on wasm32.

use std::{pin::pin, time::Duration};

use js_sys::{Date, Function, Promise};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::JsFuture;

use crate::SshError;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Function, milliseconds: u32) -> i32;
    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(id: i32);
}

/// Seconds since 1970; 0 if the clock stands before that.
pub(crate) fn now() -> u64 {
    Duration::try_from_secs_f64(Date::now() / 1000.0).unwrap_or_default().as_secs()
}

/// What `work` gives, or [`SshError::Timeout`] after so many seconds.
pub(crate) async fn within<T>(
    seconds: u32,
    work: impl Future<Output = Result<T, SshError>>,
) -> Result<T, SshError> {
    let mut id = 0;
    let elapsed = Promise::new(&mut |resolve, _| {
        id = set_timeout(&resolve, seconds.saturating_mul(1000));
    });
    let _timer = Timer(id);
    tokio::select! {
        biased;
        done = pin!(work) => done,
        _ = JsFuture::from(elapsed) => Err(SshError::Timeout(seconds)),
    }
}

/// Stops a timer that is no longer waited for.
struct Timer(i32);

impl Drop for Timer {
    fn drop(&mut self) {
        clear_timeout(self.0);
    }
}
