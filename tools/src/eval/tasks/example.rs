//! The table of a task.

use super::super::error::{Error, Result};

/// An input with the answers that are right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// What is asked.
    pub input: String,
    /// The right answers: at least one.
    pub references: Vec<String>,
}

impl Example {
    /// The examples of a table with a tab between its columns: the input, then right answers in the
    /// next `columns` ones, which may be fewer but the first.
    ///
    /// # Errors
    /// [`Error::Example`] for a line without an input or an answer, [`Error::NoExamples`].
    pub fn parse(table: &str, columns: usize) -> Result<Vec<Self>> {
        let lines = table.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let examples = lines.map(|(index, line)| {
            let mut cells = line.split('\t').map(str::trim);
            let input = cells.next().unwrap_or_default().to_owned();
            let references: Vec<_> =
                cells.take(columns).filter(|cell| !cell.is_empty()).map(str::to_owned).collect();
            match input.is_empty() || references.is_empty() {
                true => Err(Error::Example { line: index + 1 }),
                false => Ok(Self { input, references }),
            }
        });
        let examples: Vec<_> = examples.collect::<Result<_>>()?;
        if examples.is_empty() { Err(Error::NoExamples) } else { Ok(examples) }
    }

    /// Whether `answer` is one of the right ones.
    pub fn is_right(&self, answer: &str) -> bool {
        self.references.iter().any(|reference| reference == answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_parsed() {
        let table = "set an alarm\talarm\tutility\n\nhello\tgreeting\n";
        let examples = Example::parse(table, 1).unwrap();
        assert_eq!(examples.len(), 2);
        assert_eq!(examples[0].references, ["alarm"]);
        assert!(examples[0].is_right("alarm") && !examples[0].is_right("utility"));
        let examples = Example::parse(table, usize::MAX).unwrap();
        assert_eq!(examples[0].references, ["alarm", "utility"]);
        for (table, line) in [("a\tb\nno tab\n", 2), ("\tb\n", 1), ("a\t\n", 1)] {
            let error = Example::parse(table, 1).unwrap_err();
            assert!(matches!(error, Error::Example { line: found } if found == line), "{error}");
        }
        assert!(matches!(Example::parse("\n\n", 1), Err(Error::NoExamples)));
    }
}
