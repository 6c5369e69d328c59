//! The thread pool, one for the process.

use crate::error::{Result, refuse};

/// Sizes the pool; 0 means one thread a core. Once the pool runs, only its own size is accepted.
pub fn set_threads(count: usize) -> Result<()> {
    let built = rayon::ThreadPoolBuilder::new().num_threads(count).build_global();
    if built.is_err() && count != rayon::current_num_threads() {
        refuse!("the thread pool already runs with {} threads", rayon::current_num_threads());
    }
    Ok(())
}
