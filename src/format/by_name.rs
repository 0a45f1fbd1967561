//! A map from names in the order of names, in one piece of memory: a header has two, and a tree would take more of
//! it, and a few kilobytes of code.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Serialize, Serializer};

use super::json::{Json, Reader};
use crate::heap;

/// Values by name, each name once, in the order of names.
#[derive(Clone, Debug, PartialEq)]
pub struct ByName<T>(Vec<(String, T)>);

impl<T> ByName<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name)).ok()
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.place(name).map(|place| &self.0[place].1)
    }

    /// As [`get`](Self::get), to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        self.place(name).map(|place| &mut self.0[place].1)
    }

    /// Names and values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&String, &T)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// The names.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &String> {
        self.0.iter().map(|(name, _)| name)
    }

    /// The values.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }

    /// The values, to change them.
    pub fn values_mut(&mut self) -> impl ExactSizeIterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// Sorts; returns a name that occurs twice, if one does.
    fn sort(&mut self) -> Option<&str> {
        heap::sort(&mut self.0, |(a, _), (b, _)| a < b);
        let mut twice = self.0.windows(2).filter(|pair| pair[0].0 == pair[1].0);
        twice.next().map(|pair| &*pair[0].0)
    }
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Of values of one name any stays.
impl<T> FromIterator<(String, T)> for ByName<T> {
    fn from_iter<I: IntoIterator<Item = (String, T)>>(entries: I) -> Self {
        let mut all = Self(entries.into_iter().collect());
        all.sort();
        all.0.dedup_by(|a, b| a.0 == b.0);
        all
    }
}

impl<T: Serialize> Serialize for ByName<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// That a name occurs twice is an error. To keep one of the values would be worse: which one differs from parser to
/// parser, so a file could be one model to this reader and another to a tool that is to judge it.
impl<T: Json> Json for ByName<T> {
    fn read(reader: &mut Reader) -> Self {
        let member =
            |(name, mut reader): (Cow<str>, Reader)| (name.into_owned(), T::read(&mut reader));
        let mut all = Self(reader.object().members().map(member).collect());
        if let Some(name) = all.sort() {
            reader.twice(name);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::json;

    #[test]
    fn names_are_found_in_their_order() {
        let mut all: ByName<u8> = json::read(r#"{"b": 2, "": 0, "c": 3, "a": 1}"#).unwrap();
        assert_eq!(all.keys().map(|name| &**name).collect::<String>(), "abc");
        assert_eq!(all.values().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!((all.get("b"), all.get("bb"), all.len()), (Some(&2), None, 4));
        all.values_mut().for_each(|value| *value += 1);
        *all.get_mut("a").unwrap() += 10;
        let written = serde_json::to_string(&all).unwrap();
        assert_eq!(written, r#"{"":1,"a":12,"b":3,"c":4}"#);
        assert_eq!(
            all.iter().map(|(name, value)| (name.clone(), *value)).collect::<ByName<_>>(),
            all
        );
        let twice = json::read::<ByName<u8>>(r#"{"b": 2, "a": 1, "\u0062": 2}"#).unwrap_err();
        assert_eq!(twice.to_string(), "\"b\" occurs twice at byte 29");
        assert!(ByName::<u8>::default().is_empty());
    }
}
