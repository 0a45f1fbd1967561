//! Memory that a chat template takes: no more than the library asks the system for before it lets the engine run,
//! which ends the process if it gets none (docs/embedding.md, section 5).

#[path = "hostile/allocations.rs"]
#[allow(dead_code, reason = "only what counts the whole process is used")]
mod allocations;
#[path = "hostile/chat_memory.rs"]
mod chat_memory;

use cerebellum::Error;
use cerebellum::chat::{Date, Message, Role, Variables, render_template};

/// The longest template that a model file may have.
const LONGEST: usize = 1 << 16;

fn filled(part: &str) -> String {
    part.repeat(LONGEST / part.len())
}

// The only test here that takes much: the counters are the process's.
#[test]
fn the_engine_takes_no_more_than_was_asked_for() {
    let date = Date::new(2025, 1, 31).unwrap();
    let variables =
        Variables { prompt_answer: true, beginning_token: "", end_token: "", date, thinking: None };
    let grow = |start: &str, step: &str| {
        format!(
            "{{% set ns = namespace(a={start}) %}}{{% for i in range(99999) %}}\
             {{% set ns.a = {step} %}}{{% endfor %}}{{{{ ns.a | length }}}}"
        )
    };
    let deep = |step: &str, end: &str| {
        format!(
            "{{% set ns = namespace(a=[]) %}}{{% for i in range(messages[0].content | length // 20 + 9000) %}}\
             {{% set ns.a = {step} %}}{{% endfor %}}{{{{ {end} }}}}"
        )
    };
    let list = |item: &str| {
        format!("[{}1]", format!("{item},").repeat((LONGEST - 200) / (item.len() + 1)))
    };
    let templates = [
        // What grows from step to step.
        grow("[]", "[ns.a, i]"),
        grow("[]", "[ns.a, namespace(b=i)]"),
        grow("[]", "ns.a + [i]"),
        grow("[]", "{'a': ns.a, 'b': i}"),
        grow("''", "ns.a ~ 'some bytes of text'"),
        grow("'x'", "ns.a ~ ns.a"),
        grow("''", "[ns.a, 'a text that is long enough' ~ i]"),
        grow("[]", "[ns.a, messages[0].content | upper]"),
        grow("[]", "[ns.a, range(99999) | list]"),
        grow("[]", "[ns.a, messages[0].content | list]"),
        grow("[]", "[ns.a, messages[0].content.split('a')]"),
        // What is so deep that the engine calls itself often.
        deep("[ns.a]", "ns.a | tojson"),
        deep("[ns.a]", "ns.a"),
        deep("[ns.a]", "ns.a == [ns.a]"),
        deep("{'a': ns.a}", "ns.a | string | length"),
        deep("{'a': ns.a}", "ns.a | tojson | length"),
        // What is made at once.
        "{{ range(99999) | list | tojson }}".into(),
        "{{ range(99999) | map('string') | join(',') | length }}".into(),
        "{{ range(99999) | map('list') | list | length }}".into(),
        "{{ range(9999) | batch(3) | list | length }}".into(),
        "{{ messages[0].content | replace('a', 'bbbb') | replace('b', 'cccc') | length }}".into(),
        "{{ messages[0].content | list | sort | unique | list | length }}".into(),
        "{{ messages | tojson | tojson | tojson | tojson | tojson }}".into(),
        "{{ ('%s' * 9999) | format(messages) }}".into(),
        // What its own text is parsed into.
        filled("{{a}}"),
        filled("{{a.b[c]|d(e)}}"),
        filled("{%if a%}{%endif%}"),
        filled("{%for a in b%}{%endfor%}"),
        filled("{%set a=1%}"),
        filled("{%macro a(b)%}{%endmacro%}"),
        filled("{{[]}}"),
        filled("{%"),
        filled("a\n"),
        format!("{{{{ {} | length }}}}", list("1")),
        format!("{{{{ {} | length }}}}", list("a")),
        format!("{{{{ {} | length }}}}", list("'a'")),
        format!("{{{{ {} | length }}}}", list("{}")),
        format!("{{{{ a{} }}}}", "+a".repeat(LONGEST / 2 - 20)),
    ];
    let few = vec![Message::new(Role::User, "banana ".repeat(50))];
    let long = vec![Message::new(Role::User, "banana ".repeat(50_000))];
    let many: Vec<_> = (0..500).map(|_| few[0].clone()).collect();
    let mut ends = [0; 2];
    for messages in [&few, &long, &many] {
        for template in &templates {
            let (result, peak) =
                allocations::peak_of_process(|| render_template(template, messages, &variables));
            let shown: String = template.chars().take(90).collect();
            let asked = chat_memory::asked_for(messages);
            assert!(peak <= asked + (64 << 10), "{shown}: {peak} bytes, {asked} were asked for");
            ends[usize::from(result.is_ok())] += 1;
            assert!(matches!(result, Ok(_) | Err(Error::Chat(_))), "{shown}: {result:?}");
        }
    }
    assert!(ends.iter().all(|&count| count > 20), "{ends:?}: texts and errors");
}
