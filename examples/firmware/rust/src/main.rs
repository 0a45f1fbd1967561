//! A model tells a story without an operating system: `tell`, and what a board needs (`start`, `heap`, `semihosting`).
//!
//! The model that `MODEL` names when this is built becomes a part of the program, in the memory that the board's script
//! calls MODEL. The argument `record` makes it compute the logits that the library's tests have recorded, and
//! `instructions` count how many a token takes.

#![no_std]
#![no_main]

extern crate alloc;

mod heap;
mod instructions;
mod record;
mod semihosting;
mod start;

use core::fmt::Write;
use core::ops::ControlFlow;
use core::panic::PanicInfo;

use cerebellum::generate::{GenerateOptions, generate_text};
use cerebellum::{Model, Result, SessionOptions};
use semihosting::{Out, command_line, exit};

/// Where a model begins.
#[repr(C, align(64))]
struct Aligned<T>(T);

#[unsafe(link_section = ".model")]
static MODEL: Aligned<[u8; include_bytes!(env!("MODEL")).len()]> =
    Aligned(*include_bytes!(env!("MODEL")));

const PROMPT: &str = "Once upon a time";

fn tell(model: &Model, out: &mut Out) -> Result<()> {
    let options = SessionOptions { context: Some(128), chunk: 16, ..Default::default() };
    let opened = heap::most();
    let plan = model.plan(&options)?;
    let mut session = model.session(&options)?;
    let tokenizer = model.tokenizer()?;
    let prompt = session.encode(&tokenizer, PROMPT, Default::default())?;
    let _ = write!(out, "{PROMPT}");
    let options = GenerateOptions { max_tokens: 64, ..Default::default() };
    generate_text(&mut session, tokenizer.table(), &prompt, &options, |piece| {
        let _ = write!(out, "{piece}");
        ControlFlow::Continue(())
    })?;
    let (read, plan, most) = (model.file_bytes(), plan.total_private_bytes, heap::most());
    let _ = writeln!(
        out,
        "\n\nmodel {read} bytes, opening {opened} bytes, session {plan} bytes, heap {most} bytes"
    );
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    heap::give();
    let mut arguments = [0; 128];
    let arguments = command_line(&mut arguments);
    let done = Model::borrow(&MODEL.0[..]).and_then(|model| match arguments.rsplit(' ').next() {
        Some("instructions") => instructions::report(&model, &mut Out),
        Some("record") => record::run(&model, 1, &mut Out),
        Some("record-all") => record::run(&model, usize::MAX, &mut Out),
        _ => tell(&model, &mut Out),
    });
    if let Err(error) = done {
        let _ = writeln!(Out, "{error}");
        exit(1);
    }
    exit(0)
}

#[panic_handler]
fn panicked(panic: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Out, "{panic}");
    exit(101)
}

/// Where exceptions end.
#[unsafe(no_mangle)]
extern "C" fn fault() -> ! {
    let _ = writeln!(Out, "the processor met a fault");
    exit(102)
}
