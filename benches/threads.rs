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

const SAMPLES: usize = 201;

fn main() {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    println!("{cores} cores; ns: median (least, 90 %)");
    let teams = [1, 2, 3, 4, 8].map(|threads| Team::new(threads).unwrap());
    let [_, pair, ..] = &teams;
    let rayon = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();

    println!("\nfrom thread to thread and back");
    report("limit: a cache line", samples(|| 2.0 * line_one_way()));
    report("Team, 2 shares that wait for each other", samples(|| meeting_phase(pair)));
    report("std::sync::Barrier, 2 waits", samples(|| 2.0 * std_barrier()));

    println!("\nan empty run or call, 2 threads, again at once");
    report("Team, 1 phase", samples(|| mean_of(1000, || pair.run_phases(1, &|_, _| {}))));
    report("Team, each further phase", samples(|| further_phase(pair)));
    rayon.install(|| {
        report("rayon::join", samples(|| mean_of(1000, || _ = rayon::join(|| (), || ()))));
        report("rayon::broadcast", samples(|| mean_of(100, || _ = rayon::broadcast(|_| ()))));
    });

    println!("\nan empty run or call, 2 threads, after a pause of 2 ms (asleep)");
    report("Team, 1 phase", samples(|| after_pause(|| pair.run_phases(1, &|_, _| {}))));
    report("Team, 2 shares that wait for each other", samples(|| after_pause(|| meet(pair, 1))));
    rayon.install(|| {
        report("rayon::broadcast", samples(|| after_pause(|| _ = rayon::broadcast(|_| ()))));
    });

    for phase in [4, 40].map(Duration::from_micros) {
        println!("\na pass: 100 phases that take {phase:?} on one thread");
        let calls = calibrate(phase);
        report("no phases", samples(|| mean_of(1, || work(100 * calls))));
        for team in &teams {
            let name = format!("Team of {}", team.workers());
            report(&name, samples(|| mean_of(1, || pass(team, calls))));
        }
        report("rayon::join, 2 threads", samples(|| mean_of(1, || rayon_pass(&rayon, calls))));
    }
}

fn samples(mut sample: impl FnMut() -> f64) -> Vec<f64> {
    (0..SAMPLES).map(|_| sample()).collect()
}

fn report(name: &str, mut samples: Vec<f64>) {
    samples.sort_unstable_by(f64::total_cmp);
    let at = |percent| samples[(samples.len() - 1) * percent / 100];
    println!("  {name:42} {:9.0} ({:.0}, {:.0})", at(50), at(0), at(90));
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
    const TURNS: usize = 200;
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

fn further_phase(team: &Team) -> f64 {
    const PHASES: usize = 1000;
    mean_of(1, || team.run_phases(PHASES, &|_, _| {})) / PHASES as f64
}

/// Each share of a phase waits for the other one to start, so neither thread can do both.
fn meet(team: &Team, phases: usize) {
    let started = AtomicUsize::new(0);
    team.run_phases(phases, &|phase, _| {
        started.fetch_add(1, AcqRel);
        while started.load(Acquire) < 2 * (phase + 1) {
            spin_loop();
        }
    });
}

fn meeting_phase(team: &Team) -> f64 {
    const PHASES: usize = 100;
    mean_of(1, || meet(team, PHASES)) / PHASES as f64
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
