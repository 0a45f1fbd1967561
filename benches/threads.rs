//! What handing work to other threads costs, against the standard library's barrier, rayon, and the
//! limit: a cache line going from core to core. Run with `cargo bench --bench threads`.
//!
//! Medians of many samples, since other programs' interference is one-sided and comes in bursts.

use cerebellum::threads::Team;
use std::hint::{black_box, spin_loop};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::thread;
use std::time::{Duration, Instant};

const SAMPLES: usize = 301;

fn main() {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    println!("{cores} cores; median (10 %, 90 %) in ns");

    println!("\na barrier, 2 threads");
    report("limit: a cache line one way", samples(line_one_way));
    let team = Team::new(2).unwrap();
    report("Team, phase to phase", samples(|| phase_to_phase(&team)));
    report("std::sync::Barrier", samples(std_barrier));

    println!("\nan empty run or call, 2 threads, again at once");
    report("limit: a cache line there and back", samples(|| 2.0 * line_one_way()));
    report("Team, 1 phase", samples(|| mean_of(1000, || team.run_phases(1, &|_, _| {}))));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(|| {
        report("rayon::join", samples(|| mean_of(1000, || _ = rayon::join(|| (), || ()))));
        report("rayon::broadcast", samples(|| mean_of(1000, || _ = rayon::broadcast(|_| ()))));
    });

    println!("\nan empty run or call, 2 threads, after a pause of 2 ms (asleep)");
    report("Team, 1 phase", samples(|| after_pause(|| team.run_phases(1, &|_, _| {}))));
    pool.install(|| {
        report("rayon::broadcast", samples(|| after_pause(|| _ = rayon::broadcast(|_| ()))));
    });

    println!("\na pass: 100 phases that take 40 us on one thread");
    let alone = Team::new(1).unwrap();
    let calls = calibrate(Duration::from_micros(40));
    for workers in [1, 2, 3, 4, 8] {
        let team = Team::new(workers).unwrap();
        let name = format!("Team of {workers}");
        report(&name, samples(|| mean_of(1, || pass(&team, calls))));
    }
    report("100 forks of rayon, 2 threads", samples(|| mean_of(1, || rayon_pass(&pool, calls))));
    report(
        "one thread, 1 phase of 100 times the work",
        samples(|| mean_of(1, || alone.run_phases(1, &|_, _| work(100 * calls)))),
    );
}

fn samples(mut sample: impl FnMut() -> f64) -> Vec<f64> {
    (0..SAMPLES).map(|_| sample()).collect()
}

fn report(name: &str, mut samples: Vec<f64>) {
    samples.sort_unstable_by(f64::total_cmp);
    let at = |percent| samples[samples.len() * percent / 100];
    println!("  {name:42} {:9.0} ({:.0}, {:.0})", at(50), at(10), at(90));
}

/// Nanoseconds of one call.
fn mean_of(calls: usize, mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..calls).for_each(|_| f());
    start.elapsed().as_nanos() as f64 / calls as f64
}

fn after_pause(f: impl FnMut()) -> f64 {
    thread::sleep(Duration::from_millis(2));
    mean_of(1, f)
}

/// Two threads take turns at adding to a number.
fn line_one_way() -> f64 {
    const TURNS: usize = 2000;
    let number = AtomicUsize::new(0);
    let play = |parity: usize| {
        for turn in (parity..TURNS).step_by(2) {
            while number.load(Acquire) != turn {
                spin_loop();
            }
            number.store(turn + 1, Release);
        }
    };
    both(|| play(0), || play(1)) / TURNS as f64
}

fn phase_to_phase(team: &Team) -> f64 {
    const PHASES: usize = 2000;
    mean_of(1, || team.run_phases(PHASES, &|_, _| {})) / PHASES as f64
}

fn std_barrier() -> f64 {
    const WAITS: usize = 200;
    let barrier = Barrier::new(2);
    let wait = || (0..WAITS).for_each(|_| _ = barrier.wait());
    both(wait, wait) / WAITS as f64
}

/// Nanoseconds that `a` takes, with `b` in another thread that is running already.
fn both(a: impl Fn(), b: impl Fn() + Send + Sync) -> f64 {
    let ready = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            ready.store(1, Release);
            b();
        });
        while ready.load(Acquire) == 0 {
            spin_loop();
        }
        mean_of(1, a)
    })
}

/// Computes for a time proportional to `calls`, without touching memory.
fn work(calls: usize) {
    black_box(
        (0..calls)
            .fold(0_u64, |x, i| black_box(x).wrapping_mul(6_364_136_223_846_793_005) + i as u64),
    );
}

fn calibrate(time: Duration) -> usize {
    const CALLS: usize = 100_000;
    let mut ns = samples(|| mean_of(1, || work(CALLS)));
    ns.sort_unstable_by(f64::total_cmp);
    (time.as_nanos() as f64 * CALLS as f64 / ns[SAMPLES / 2]) as usize
}

fn pass(team: &Team, calls: usize) {
    team.run_phases(100, &|_, worker| work(worker.share(calls).len()));
}

fn rayon_pass(pool: &rayon::ThreadPool, calls: usize) {
    pool.install(|| {
        for _ in 0..100 {
            rayon::join(|| work(calls / 2), || work(calls / 2));
        }
    });
}
