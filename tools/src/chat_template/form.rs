//! Finds the simple form of a template by what it makes of conversations.
//!
//! The texts of the messages are known, so what stands between them is what the template wrote. A form that is
//! read off a few conversations is kept only if it makes the same of all others.

use cerebellum::chat::{Date, Message, Role, Variables, render_template};
use cerebellum::format::{Around, ChatForm};

/// Texts that no template writes itself.
const SYSTEM: &str = "system-4f1c";
const USER: &str = "user-a93e";
const ANSWER: &str = "answer-77b0";
const LATER: &str = "later-c25d";

/// Two days that differ in everything that can be written of them.
const DAYS: [(u32, u32, u32); 2] = [(2024, 7, 26), (2031, 10, 5)];

struct Probe<'a> {
    template: &'a str,
    tokens: (&'a str, &'a str),
}

impl Probe<'_> {
    fn render(&self, messages: &[(Role, &str)], prompt_answer: bool) -> Result<String, String> {
        self.render_on(DAYS[0], messages, prompt_answer)
    }

    fn render_on(
        &self,
        (year, month, day): (u32, u32, u32),
        messages: &[(Role, &str)],
        prompt_answer: bool,
    ) -> Result<String, String> {
        let variables = Variables {
            prompt_answer,
            beginning_token: self.tokens.0,
            end_token: self.tokens.1,
            date: Date::new(year, month, day).expect("a day of the calendar"),
            thinking: None,
        };
        render_template(self.template, &made(messages), &variables).map_err(|e| e.to_string())
    }
}

fn made(messages: &[(Role, &str)]) -> Vec<Message> {
    messages.iter().map(|&(role, content)| Message::new(role, content)).collect()
}

/// The simple form of a template with these texts of the tokens that begin and end a text.
///
/// # Errors
/// Why there is none, in a few words.
pub fn simple_form(template: &str, beginning: &str, end: &str) -> Result<ChatForm, String> {
    use Role::{Assistant, System, User};
    let probe = Probe { template, tokens: (beginning, end) };
    let (user, answer, later) = ((User, USER), (Assistant, ANSWER), (User, LATER));
    let asked = probe.render(&[user], true)?;
    let said = probe.render(&[user], false)?;
    let answered = probe.render(&[user, answer], false)?;
    let turns = probe.render(&[user, answer, later], true)?;

    let [before, after] = between(&said, &[USER])?;
    // What ends a text without an answer is no part of a turn: Phi-3 writes the end-of-text token there.
    let [_, follows_user, follows_answer, last] = between(&turns, &[USER, ANSWER, LATER])?;
    let [_, _, ends_answer] = between(&answered, &[USER, ANSWER])?;
    let [_, asks] = between(&asked, &[USER])?;
    let user_after = common_start(&[&after, &follows_user, &asks]);
    let assistant_after = common_start(&[&ends_answer, &follows_answer]);
    let mut form = ChatForm {
        user: Around {
            before: follows_answer[assistant_after.len()..].to_owned(),
            after: user_after.to_owned(),
            trim: false,
        },
        assistant: Around {
            before: follows_user[user_after.len()..].to_owned(),
            after: assistant_after.to_owned(),
            trim: false,
        },
        answer: asks[user_after.len()..].to_owned(),
        ..ChatForm::default()
    };
    if last != asks {
        return Err("a later turn is asked otherwise".into());
    }
    // Where the first turn begins otherwise than later ones, the form has no place for that.
    let opening = before.strip_suffix(&*form.user.before);
    form.opening = opening.ok_or("the first turn begins otherwise than later ones")?.to_owned();
    form.system = system(&probe, &mut form)?;
    trims(&probe, &mut form)?;
    form.drop_thinking = {
        let thought = (Assistant, "<think>\nx\n</think>\n\ny");
        let text = probe.render(&[user, thought, later], true)?;
        !text.contains("<think>\nx") && !text.contains('x')
    };
    check(&probe, &form)?;
    if form.system.is_none() {
        // A template that refuses system messages has no other form either.
        let refused = probe.render(&[(System, SYSTEM), user], true).is_err();
        return if refused {
            Ok(form)
        } else {
            Err("the system message has no place of its own".into())
        };
    }
    Ok(form)
}

/// What stands around a system message; `None` if the template has none, or puts it where the form cannot.
fn system(probe: &Probe, form: &mut ChatForm) -> Result<Option<Around>, String> {
    use Role::{Assistant, System, User};
    let messages = [(System, SYSTEM), (User, USER), (Assistant, ANSWER), (User, LATER)];
    let Ok(text) = probe.render(&messages, true) else { return Ok(None) };
    let Ok([before, after, ..]) = between::<5>(&text, &[SYSTEM, USER, ANSWER, LATER]) else {
        return Ok(None);
    };
    let (after, in_user) = match after.strip_suffix(&*form.user.before) {
        Some(after) if !form.user.before.is_empty() => (after.to_owned(), false),
        _ => (after, true),
    };
    form.system_in_user = in_user;
    Ok(Some(Around { before, after, trim: false }))
}

/// Finds out of which messages the template strips white space.
fn trims(probe: &Probe, form: &mut ChatForm) -> Result<(), String> {
    use Role::{Assistant, System, User};
    const WIDE: &str = " \n wide-51e8 \n ";
    let trimmed = |messages: &[(Role, &str)]| -> Result<bool, String> {
        Ok(!probe.render(messages, true)?.contains(WIDE))
    };
    form.user.trim = trimmed(&[(User, WIDE)])?;
    form.assistant.trim = trimmed(&[(User, USER), (Assistant, WIDE), (User, LATER)])?;
    if let Some(system) = &mut form.system {
        system.trim = trimmed(&[(System, WIDE), (User, USER)])?;
    }
    Ok(())
}

/// Whether the form makes what the template makes.
fn check(probe: &Probe, form: &ChatForm) -> Result<(), String> {
    use Role::{Assistant, System, User};
    let contents = [
        "Hello",
        "",
        "  two\nlines \n\n",
        "a </think> b",
        "<think>\nlong\n</think>\n\n four ",
        "{{ x }} {% if y %} <|im_end|> [INST] </s>",
        "/no_think \u{20ac} /think <tool_response>z</tool_response>",
    ];
    for turns in 1..=4 {
        for (i, first) in contents.iter().enumerate() {
            for with_system in [false, true] {
                if with_system && form.system.is_none() {
                    continue;
                }
                let content = |n: usize| contents[(i + n) % contents.len()];
                let mut messages = vec![];
                if with_system {
                    messages.push((System, content(5)));
                }
                for turn in 0..turns {
                    if turn > 0 {
                        messages.push((Assistant, content(2 * turn + 3)));
                    }
                    messages.push((User, if turn == 0 { first } else { content(turn) }));
                }
                let expected = probe.render(&messages, true)?;
                let rendered =
                    form.render(&made(&messages), true).map_err(|error| error.to_string())?;
                if rendered.as_ref() != Some(&expected) {
                    return Err(format!(
                        "it treats {turns} turns{} otherwise",
                        if with_system { " with a system message" } else { "" }
                    ));
                }
                if probe.render_on(DAYS[1], &messages, true)? != expected {
                    return Err("it writes the date".into());
                }
            }
        }
    }
    Ok(())
}

/// What stands before, between and behind texts that occur once each, in this order.
fn between<const N: usize>(text: &str, texts: &[&str]) -> Result<[String; N], String> {
    let (mut parts, mut rest) = (Vec::new(), text);
    for known in texts {
        let (before, after) =
            rest.split_once(known).ok_or("it leaves messages out, or turns them around")?;
        parts.push(before.to_owned());
        rest = after;
    }
    parts.push(rest.to_owned());
    if texts.iter().any(|known| text.matches(known).count() > 1) {
        return Err("it repeats messages".into());
    }
    parts.try_into().map_err(|_| "it repeats messages".to_owned())
}

/// The longest beginning that all have.
fn common_start<'a>(texts: &[&'a str]) -> &'a str {
    let first = texts[0];
    let mut end = first.len();
    for text in texts {
        let same = first.char_indices().zip(text.chars()).find(|((_, a), b)| a != b);
        end = end.min(same.map_or(first.len().min(text.len()), |((at, _), _)| at));
    }
    &first[..end]
}
