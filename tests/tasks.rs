//! Tasks by templates: what the prompts of the parts give, and where long texts are cut.

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cerebellum::batch::Next;
use cerebellum::generate::{GenerateOptions, StopReason, generate_text};
use cerebellum::quant::Scheme;
use cerebellum::task::{Task, TaskResult};
use cerebellum::template::Template;
use cerebellum::text::Tokenizer;
use cerebellum::{Error, Model, SessionOptions, TokenizerBytes};
use common::{demo, quantized};

const TRANSLATE: &str =
    "stop: \"\\n\"\nmax-tokens: 3x\nsplit: sentences\n---\nEnglish: {text}\nFrench:\n";

fn setup() -> (Model, Tokenizer<TokenizerBytes>) {
    let model = quantized(&demo(), Scheme::Int4, 64);
    let tokenizer = model.tokenizer().unwrap();
    (model, tokenizer)
}

fn parse(template: &str) -> Template {
    template.parse().unwrap()
}

/// The result, whose stream must be the same text.
fn run(
    model: &Model,
    tokenizer: &Tokenizer<TokenizerBytes>,
    template: &str,
    text: &str,
    options: &SessionOptions,
) -> Result<TaskResult, Error> {
    let task = Task::new(tokenizer, parse(template));
    let mut session = model.session(options).unwrap();
    let mut streamed = String::new();
    let result = task.run(&mut session, text, |piece| {
        streamed += piece;
        ControlFlow::Continue(())
    })?;
    assert_eq!(streamed, result.text);
    // What the session held before changes nothing, nor does the number of threads.
    let again = task.run(&mut session, text, |_| ControlFlow::Continue(()))?;
    let mut other = model.session(&SessionOptions { threads: 2, ..options.clone() }).unwrap();
    let other = task.run(&mut other, text, |_| ControlFlow::Continue(()))?;
    for result in [again, other] {
        assert_eq!(result.text, streamed);
    }
    Ok(result)
}

/// What a prompt gives up to the end of the line.
fn line_after(model: &Model, tokenizer: &Tokenizer<TokenizerBytes>, prompt: &str) -> String {
    let mut session = model.session(&SessionOptions::default()).unwrap();
    let options = GenerateOptions { stop: vec!["\n".to_owned()], ..Default::default() };
    let prompt = tokenizer.encode(prompt, Default::default()).unwrap();
    let mut text = String::new();
    generate_text(&mut session, tokenizer.table(), &prompt, &options, |piece| {
        text += piece;
        ControlFlow::Continue(())
    })
    .unwrap();
    text.trim().to_owned()
}

#[test]
fn each_sentence_is_put_to_the_model_by_the_template() {
    let (model, tokenizer) = setup();
    let sentences = ["I am here.", "Where is Tom?", "He is my brother!"];
    let text = format!(" {}  {}\n\n{}\n", sentences[0], sentences[1], sentences[2]);
    let result = run(&model, &tokenizer, TRANSLATE, &text, &SessionOptions::default()).unwrap();
    let alone = sentences
        .map(|sentence| line_after(&model, &tokenizer, &format!("English: {sentence}\nFrench:")));
    assert_eq!(result.text, format!("{} {}\n\n{}", alone[0], alone[1], alone[2]));
    assert_eq!((result.parts, result.split, result.cut), (3, false, 0));
    assert!(alone[0].contains("suis"), "{alone:?}");
    let blank = run(&model, &tokenizer, TRANSLATE, " \n ", &SessionOptions::default()).unwrap();
    assert_eq!((blank.text.as_str(), blank.parts), ("", 0));
}

#[test]
fn a_long_text_is_cut_to_fit_between_sentences_then_words_then_characters() {
    let (model, tokenizer) = setup();
    let template = "max-tokens: 8\n---\nText: {text}\nSo:";
    let options = SessionOptions { context: Some(40), ..Default::default() };
    let text = "The king went to the wood. ".repeat(12);
    let result = run(&model, &tokenizer, template, &text, &options).unwrap();
    // Each part has its template and leaves room for its result.
    let of_template = tokenizer.encode("Text: \nSo:", Default::default()).unwrap().len();
    let most = 40 - 8 - of_template;
    assert!(result.parts >= result.text_tokens.div_ceil(most), "{result:?}");
    assert!(result.parts <= 2 * result.text_tokens.div_ceil(most) + 1, "{result:?}");
    assert_eq!((result.cut, result.split), (result.parts, true));
    let words = "king ".repeat(100);
    assert!(run(&model, &tokenizer, template, &words, &options).unwrap().parts > 2);
    let word = "kéx".repeat(100);
    assert!(run(&model, &tokenizer, template, &word, &options).unwrap().parts > 2);
    let whole = SessionOptions::default();
    assert_eq!(run(&model, &tokenizer, template, &words, &whole).unwrap().parts, 1);
}

#[test]
fn a_character_of_any_length_is_cut() {
    let (model, tokenizer) = setup();
    let template = "max-tokens: 1\n---\n{text}";
    let options = SessionOptions { context: Some(40), ..Default::default() };
    // One cluster: a letter with accents, a flag of joined figures.
    for cluster in ["e".to_owned() + &"\u{301}".repeat(200), "\u{1f469}\u{200d}".repeat(100)] {
        let result = run(&model, &tokenizer, template, &cluster, &options).unwrap();
        assert!(result.parts > 5 && result.split, "{result:?}");
        assert!(result.parts < 30, "{result:?}");
    }
}

/// Time that this thread has used, whatever else the machine does.
fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for writing.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(status, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Each place of a text is looked at a bounded number of times, however long it is.
#[test]
fn cutting_takes_time_proportional_to_the_text() {
    let (model, tokenizer) = setup();
    let never = "sentences: 1\nmax-tokens: 1\n---\n{text}";
    let seconds = |text: &str| {
        let task = Task::new(&tokenizer, parse(never));
        let mut session = model.session(&SessionOptions::default()).unwrap();
        let start = thread_seconds();
        // The first piece of a result comes when all of the text is cut.
        let result = task.run(&mut session, text, |_| ControlFlow::Break(())).unwrap();
        assert!(result.parts <= 1);
        thread_seconds() - start
    };
    let prose = "The king went to the wood, where he met a bear. \"Where is Tom?\" he said.\n";
    for unit in [prose, "a", "1. ", "\t", "e\u{301}", "a\t\t\t\t\t\t\t\t"] {
        let text = |bytes: usize| "x".to_owned() + &unit.repeat(bytes / unit.len()) + "x";
        let (short, long) = (seconds(&text(6_000)), seconds(&text(60_000)));
        assert!(
            long < 40.0 * short.max(0.02),
            "{unit:?}: {short} s, {long} s for ten times as much"
        );
    }
}

#[test]
fn a_request_to_stop_is_followed_while_a_text_is_cut() {
    let (model, tokenizer) = setup();
    let task = Task::new(&tokenizer, parse("max-tokens: 8\n---\nText: {text}\nSo:"));
    let mut session = model.session(&SessionOptions::default()).unwrap();
    let cancel = Arc::new(AtomicBool::new(false));
    session.cancel_by(Arc::clone(&cancel));
    // Cutting all of it takes minutes.
    let text = "The king went to the wood. ".repeat(4_000_000);
    let (result, late) = std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            cancel.store(true, Relaxed);
            Instant::now()
        });
        let result = task.run(&mut session, &text, |_| ControlFlow::Continue(())).unwrap();
        (result, asked.join().unwrap().elapsed())
    });
    assert_eq!((result.stop_reason, result.parts), (StopReason::Cancelled, 0));
    assert!(late < Duration::from_secs(2), "{late:?}");
    // The next call is not meant.
    assert!(!cancel.load(Relaxed));
    assert!(
        !task.run(&mut session, "A king.", |_| ControlFlow::Continue(())).unwrap().text.is_empty()
    );

    // Of many texts, all are given up.
    let mut batch = model.batch(&SessionOptions::default(), 2).unwrap();
    batch.cancel_by(Arc::clone(&cancel));
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            cancel.store(true, Relaxed);
        });
        task.run_all(&mut batch, &["A king.", &text, "A bear."]).unwrap_err()
    });
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(!cancel.load(Relaxed));
    assert_eq!(task.run_all(&mut batch, &["A king."]).unwrap().len(), 1);
}

#[test]
fn the_caller_may_limit_results() {
    let (model, tokenizer) = setup();
    let mut task = Task::new(&tokenizer, parse("max-tokens: 100\n---\nOnce {text}"));
    task.set_max_tokens(5);
    let mut session = model.session(&SessionOptions::default()).unwrap();
    let result = task.run(&mut session, "upon a time", |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((result.tokens, result.cut), (5, 1));
}

#[test]
fn what_does_not_fit_is_an_error_that_says_what_to_do() {
    let (model, tokenizer) = setup();
    let small = SessionOptions { context: Some(20), ..Default::default() };
    let error = run(&model, &tokenizer, "{text}\n\nTL;DR:", "A king.", &small).unwrap_err();
    assert!(
        matches!(&error, Error::Task(message) if message.contains("larger context")),
        "{error}"
    );
    let never = "split: never\n---\n{text}\n\nTL;DR:";
    let text = "A king. ".repeat(300);
    let error = run(&model, &tokenizer, never, &text, &SessionOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::Task(message) if message.contains("shorten")), "{error}");
}

#[test]
fn a_result_ends_after_its_sentences_and_when_the_receiver_has_enough() {
    let (model, tokenizer) = setup();
    let template = "sentences: 2\nmax-tokens: 200\n---\n{text}";
    let text = "Once upon a time there was a king";
    let result = run(&model, &tokenizer, template, text, &SessionOptions::default()).unwrap();
    let ends = result.text.matches(['.', '!', '?']).count();
    assert!(ends >= 2 && result.tokens < 200, "{result:?}");
    assert_eq!(result.stop_reason, StopReason::StopString);
    let task = Task::new(&tokenizer, parse(TRANSLATE));
    let mut session = model.session(&SessionOptions::default()).unwrap();
    let result = task.run(&mut session, "I am here. He is here.", |_| ControlFlow::Break(()));
    let result = result.unwrap();
    assert_eq!((result.stop_reason, result.parts), (StopReason::Cancelled, 1));
}

#[test]
fn a_template_that_draws_takes_a_seed() {
    let (model, tokenizer) = setup();
    let mut session = model.session(&SessionOptions::default()).unwrap();
    let mut texts = Vec::new();
    for seed in [1, 2, 1] {
        let mut task =
            Task::new(&tokenizer, parse("temperature: 1\nmax-tokens: 20\n---\nOnce {text}"));
        task.set_seed(seed);
        let result = task.run(&mut session, "upon a time", |_| ControlFlow::Continue(()));
        texts.push(result.unwrap().text);
    }
    assert!(texts[0] == texts[2] && texts[0] != texts[1], "{texts:?}");
}

/// What does not depend on time.
fn timeless(result: &TaskResult) -> TaskResult {
    let mut result = result.clone();
    result.seconds = 0.0;
    result
}

#[test]
fn many_texts_together_give_the_results_of_each_alone() {
    let (model, tokenizer) = setup();
    let long = "I am here and he is there. Where is the old king? ".repeat(30);
    let texts = [
        "Where is your brother? He is very old.",
        "",
        "I am here.\n\nShe is tired.",
        &long,
        "  I like it.  ",
        "a b",
        "\u{e9}t\u{e9}",
    ];
    let wide = "sentences: 1\nmax-tokens: 40\ntemperature: 0.9\n---\nOnce {text}";
    let never = "split: never\nmax-tokens: 20\n---\n{text} and";
    for template in [TRANSLATE, wide, never] {
        let task = Task::new(&tokenizer, parse(template));
        for (sequences, threads, chunk) in [(1, 1, 64), (3, 2, 16), (8, 1, 5)] {
            let options =
                SessionOptions { context: Some(150), threads, chunk, ..Default::default() };
            let mut batch = model.batch(&options, sequences).unwrap();
            let together = task.run_all(&mut batch, &texts).unwrap();
            assert_eq!(together.len(), texts.len());
            let mut session = model.session(&options).unwrap();
            for (text, result) in texts.iter().zip(together) {
                match (result, task.run(&mut session, text, |_| ControlFlow::Continue(()))) {
                    (Ok(a), Ok(b)) => assert_eq!(timeless(&a), timeless(&b), "{text:?}"),
                    (Err(a), Err(b)) => assert_eq!(a.to_string(), b.to_string()),
                    (a, b) => panic!("{text:?}: {a:?} and {b:?}"),
                }
            }
        }
    }
}

#[test]
fn texts_may_come_late_and_results_be_enough() {
    let (model, tokenizer) = setup();
    let task = Task::new(&tokenizer, parse(TRANSLATE));
    let mut batch = model.batch(&SessionOptions::default(), 4).unwrap();
    // A text only when there is nothing else to do, so one at a time.
    let (mut given, mut waited) = (0, 0);
    let mut done = Vec::new();
    let next = |may_wait: bool| {
        waited += usize::from(!may_wait);
        match given {
            3 => Next::End,
            _ if !may_wait => Next::Later,
            _ => {
                given += 1;
                Next::Job("I am here.".to_owned())
            }
        }
    };
    task.run_each(&mut batch, next, |text, result| {
        done.push(text);
        assert!(result.unwrap().text.starts_with("Je"));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(done, [0, 1, 2]);
    assert!(waited > 0, "it asks for more while it works");
    let mut told = 0;
    let endless = |_| Next::Job("I am here.".to_owned());
    task.run_each(&mut batch, endless, |_, _| {
        told += 1;
        if told == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert_eq!(told, 5);
}
