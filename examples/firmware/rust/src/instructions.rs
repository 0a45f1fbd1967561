//! How many instructions a token takes: under `qemu -icount shift=0`, where an instruction takes a nanosecond.

use core::fmt::Write;

use cerebellum::{KvType, Model, Result, SessionOptions};

use crate::semihosting::Out;

/// A counter that goes up steadily.
#[cfg(target_arch = "arm")]
mod counter {
    const SYSTICK: *mut u32 = 0xE000_E010 as *mut u32;
    const WRAPPED: u32 = 1 << 16;

    pub fn start() {
        // SAFETY: SysTick's registers: its last value, its present one, and that it counts the processor's cycles.
        unsafe {
            SYSTICK.add(1).write_volatile(0x00FF_FFFF);
            SYSTICK.add(2).write_volatile(0);
            SYSTICK.write_volatile(0b101);
        }
    }

    /// Ticks since the start, if it did not wrap.
    pub fn ticks() -> Option<u32> {
        // SAFETY: as above; it counts down.
        let (control, now) = unsafe { (SYSTICK.read_volatile(), SYSTICK.add(2).read_volatile()) };
        (control & WRAPPED == 0).then_some(0x00FF_FFFF - now)
    }

    /// Takes so many times two instructions.
    pub fn spin(mut times: u32) {
        // SAFETY: counts a register down.
        unsafe { core::arch::asm!("0: subs {0}, {0}, #1", "bne 0b", inout(reg) times) }
        let _ = times;
    }
}

#[cfg(target_arch = "riscv32")]
mod counter {
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

    static START: AtomicU32 = AtomicU32::new(0);

    fn now() -> u32 {
        let now: u32;
        // SAFETY: reads the counter of instructions.
        unsafe { core::arch::asm!("csrr {0}, minstret", out(reg) now) }
        now
    }

    pub fn start() {
        START.store(now(), Relaxed);
    }

    pub fn ticks() -> Option<u32> {
        Some(now().wrapping_sub(START.load(Relaxed)))
    }

    pub fn spin(mut times: u32) {
        // SAFETY: counts a register down.
        unsafe { core::arch::asm!("0: addi {0}, {0}, -1", "bnez {0}, 0b", inout(reg) times) }
        let _ = times;
    }
}

/// Calls `work`, and returns how many instructions that took.
fn count(work: impl FnOnce() -> Result<()>) -> Result<u64> {
    const LOOPS: u32 = 500_000;
    counter::start();
    counter::spin(LOOPS);
    let of_loops = counter::ticks().unwrap_or(1).max(1);
    counter::start();
    work()?;
    let ticks = counter::ticks().unwrap_or(0);
    Ok(u64::from(ticks) * u64::from(2 * LOOPS) / u64::from(of_loops))
}

/// A line for each type of cache.
pub fn report(model: &Model, out: &mut Out) -> Result<()> {
    for kv in [KvType::F16, KvType::Int8] {
        let options = SessionOptions { context: Some(128), kv, chunk: 8, ..Default::default() };
        let mut session = model.session(&options)?;
        session.evaluate(&[1])?;
        let prompt = count(|| session.evaluate(&[2; 8]).map(drop))? / 8;
        session.evaluate(&[3; 23])?;
        let token = count(|| session.evaluate(&[4]).map(drop))?;
        let _ = writeln!(
            out,
            "{kv:?} cache, instructions: {token} a token after 32, {prompt} a token of a prompt of 8"
        );
    }
    Ok(())
}
