//! Templates for classification, which people write.

use cerebellum::Error;
use cerebellum::classify::Template;

use crate::class::Class;
use crate::exercise::Ran;
use crate::random::Random;

const PARTS: [&str; 12] = [
    "{text}", "{label}", "{text", "label}", "{", "}", "\n", "\r\n", " ", "\u{3000}", "\u{e9}", "\0",
];

/// Random sequences of what matters to the parser. One that is accepted has each placeholder once.
#[test]
fn random_templates() {
    let mut class = Class::new("templates");
    let mut random = Random::new(5);
    for number in 0..10_000 {
        let length = random.below(9);
        let template: String = (0..length).map(|_| random.pick(&PARTS)).collect();
        class.attempt(format_args!("{number}: {template:?}"), template.as_bytes(), || {
            let once = |part| template.matches(part).count() == 1;
            match Template::parse(&template) {
                Ok(_) => assert!(once("{text}") && once("{label}")),
                Err(Error::Option { name: "template", .. }) => {}
                Err(other) => return Err(other),
            }
            Ok(Ran { damaged: Vec::new(), tokenizer: Ok(()), evaluation: Ok(()) })
        });
    }
    class.print();
}
