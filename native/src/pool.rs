//! The thread pool, one for the process.

use crate::error::{Result, refuse};

/// Sizes the pool; 0 means half the cores this process may use, so that two nodes fit on one
/// machine. Once the pool runs, only its own size is accepted, or 0.
pub fn set_threads(count: usize) -> Result<()> {
    let size = match count {
        0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
        count => count,
    };
    let built = rayon::ThreadPoolBuilder::new()
        .num_threads(size)
        .thread_name(|i| format!("kernel {i}")) // what they cost can be seen from outside
        .build_global();
    let running = rayon::current_num_threads();
    if built.is_err() && ![0, running].contains(&count) {
        refuse!("the thread pool already runs with {running} threads");
    }
    Ok(())
}
