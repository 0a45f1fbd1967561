//! A model tells a story without an operating system: `tell`, and what a board needs (`start`, `heap`, `semihosting`).
//!
//! The model that `MODEL` names when this is built becomes a part of the program, in the memory that the board's script
//! calls MODEL, and some of its weights are copied to RAM. The argument `record` makes it compute the logits that the
//! library's tests have recorded, `record-copied` so with the copy, `scarce` open the model with little memory, and
//! `instructions` count how many a token takes.

#![no_std]
#![no_main]

extern crate alloc;

mod heap;
mod instructions;
mod record;
mod scarce;
mod semihosting;
mod start;

use core::fmt::Write;
use core::ops::ControlFlow;
use core::panic::PanicInfo;

use cerebellum::generate::{GenerateOptions, generate_text};
use cerebellum::{HostMemory, Model, Result, SessionOptions};
use semihosting::{Out, command_line, exit};

/// Where a model begins.
#[repr(C, align(64))]
struct Aligned<T>(T);

#[unsafe(link_section = ".model")]
static MODEL: Aligned<[u8; include_bytes!(env!("MODEL")).len()]> =
    Aligned(*include_bytes!(env!("MODEL")));

const PROMPT: &str = "Once upon a time";

fn tell(model: &Model, weights: HostMemory, out: &mut Out) -> Result<()> {
    let options = SessionOptions { context: Some(128), chunk: 16, ..Default::default() };
    let opened = heap::used();
    let copied = model.copy_weights(weights)?.saved_bytes;
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
        "\n\nmodel {read} bytes, of which a token reads {copied} in RAM; header {opened} bytes, session {plan} bytes, heap {most} bytes"
    );
    Ok(())
}

fn run(argument: &str, weights: HostMemory, out: &mut Out) -> Result<()> {
    if argument == "scarce" {
        return scarce::run(&MODEL.0, out);
    }
    let model = Model::borrow(&MODEL.0[..])?;
    match argument {
        "instructions" => instructions::report(&model, out),
        "record" => record::run(&model, 1, out),
        "record-copied" => {
            model.copy_weights(weights)?;
            record::run(&model, 1, out)
        }
        "record-all" => record::run(&model, usize::MAX, out),
        _ => tell(&model, weights, out),
    }
}

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    let weights = heap::give();
    let mut arguments = [0; 128];
    let arguments = command_line(&mut arguments);
    let argument = arguments.rsplit(' ').next().unwrap_or_default();
    if let Err(error) = run(argument, weights, &mut Out) {
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
