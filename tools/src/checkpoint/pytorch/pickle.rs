//! Pickle as data: the stack machine of Python's `pickle`, without the power to call anything.
//!
//! A state dict needs few of the opcodes and three functions, all of them known here by name and
//! replaced by what they mean for a reader: `collections.OrderedDict` is a dictionary,
//! `torch._utils._rebuild_tensor_v2` a view of a storage, `torch._utils._rebuild_parameter` that
//! view again. Any other name is refused where it is loaded, before anything is done with it.
//! The opcodes are described in CPython's `Lib/pickletools.py`.
//!
//! Values are small and are copied; tuples, lists and dictionaries lie in common tables and are
//! referred to by number. So a value costs memory in proportion to the pickle however it is nested
//! or repeated, and dropping it needs no recursion. Strings are never copied: names and keys that
//! leave this module are slices of the pickle. What the tables take is charged against the bytes
//! that were read ([`MEMORY_PER_BYTE`]).

use std::collections::HashSet;
use std::path::Path;

use cerebellum::terminal::quoted;

use crate::checkpoint::error::{Error, Result};

/// Larger than the pickle of any checkpoint (some hundred bytes for each tensor).
const MAX_BYTES: usize = 4 << 20;
/// What the machine's tables may take for each byte of the pickle, and what they may take beside that.
/// The tables of a state dict take 8 bytes for each byte, of one with the shortest names 11.
const MEMORY_PER_BYTE: usize = 20;
const MEMORY_BESIDE: usize = 1 << 16;
/// The deepest stack. A state dict's entries are put on it, two values each, in batches of 1000.
const MAX_STACK: usize = 1 << 14;
/// Fewer bytes of a pickle than a tensor in a state dict takes: Python needs 37 for a scalar whose name has
/// four letters.
const MIN_ENTRY_BYTES: usize = 32;
/// Two names of one tensor are pickled in fewer bytes, and a model may have some.
const ENTRIES_BESIDE: usize = 64;
/// More extents than a tensor of any model has.
const MAX_EXTENTS: usize = 8;
/// The newest protocol, as of Python 3.14.
const MAX_PROTOCOL: u8 = 5;

/// A tensor as the state dict describes it.
#[derive(Debug)]
pub(super) struct TensorRef<'a> {
    pub name: &'a str,
    pub storage: StorageRef<'a>,
    /// The first element's place in the storage.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// Elements from one index to the next, for each extent.
    pub strides: Vec<usize>,
}

/// A storage that tensors are views of.
#[derive(Clone, Copy, Debug)]
pub(super) struct StorageRef<'a> {
    pub key: &'a str,
    pub element: Element,
    /// How many elements it says it has.
    pub elements: usize,
}

/// The element type of a storage, by the name in `torch.…Storage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Float,
    Half,
    BFloat16,
    Double,
    Long,
    Int,
    Short,
    Char,
    Byte,
    Bool,
}

impl Element {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::Double | Self::Long => 8,
            Self::Float | Self::Int => 4,
            Self::Half | Self::BFloat16 | Self::Short => 2,
            Self::Char | Self::Byte | Self::Bool => 1,
        }
    }
}

/// All that a pickle may name.
const CLASSES: &[((&str, &str), Class)] = &[
    (("collections", "OrderedDict"), Class::OrderedDict),
    (("torch._utils", "_rebuild_tensor_v2"), Class::RebuildTensor),
    (("torch._utils", "_rebuild_parameter"), Class::RebuildParameter),
    (("torch", "FloatStorage"), Class::Storage(Element::Float)),
    (("torch", "HalfStorage"), Class::Storage(Element::Half)),
    (("torch", "BFloat16Storage"), Class::Storage(Element::BFloat16)),
    (("torch", "DoubleStorage"), Class::Storage(Element::Double)),
    (("torch", "LongStorage"), Class::Storage(Element::Long)),
    (("torch", "IntStorage"), Class::Storage(Element::Int)),
    (("torch", "ShortStorage"), Class::Storage(Element::Short)),
    (("torch", "CharStorage"), Class::Storage(Element::Char)),
    (("torch", "ByteStorage"), Class::Storage(Element::Byte)),
    (("torch", "BoolStorage"), Class::Storage(Element::Bool)),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Element),
}

/// A value on the machine's stack. `&str` points into the pickle.
#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// A number of no use here: a float, or an integer beyond 64 bits.
    Number,
    Text(&'a str),
    Class(Class),
    /// Begins a group of values on the stack.
    Mark,
    /// The rest are indices into the machine's tables.
    Tuple(u32),
    List(u32),
    Dict(u32),
    Storage(u32),
    Tensor(u32),
}

/// A view of storage number `storage`; `shape` and `strides` are numbers of tuples that
/// [`Machine::extents`] accepts.
#[derive(Clone, Copy, Debug)]
struct View {
    storage: u32,
    offset: usize,
    shape: u32,
    strides: u32,
}

/// The tensors of a state dict in the order saved, and the bytes its pickle takes.
///
/// # Errors
/// [`Error::Pickle`] and [`Error::PickleClass`].
pub(super) fn state_dict<'a>(
    bytes: &'a [u8],
    path: &'a Path,
) -> Result<(Vec<TensorRef<'a>>, usize)> {
    let mut machine = Machine::new(bytes, path);
    let Value::Dict(entries) = machine.run()? else {
        return Err(machine.error("it holds no dictionary"));
    };
    let entries = std::mem::take(&mut machine.dicts[entries as usize]);
    if entries.len() > ENTRIES_BESIDE + machine.at / MIN_ENTRY_BYTES {
        return Err(machine.error("it lists more tensors than its bytes can describe"));
    }
    let mut tensors = Vec::with_capacity(entries.len());
    let mut names = HashSet::with_capacity(entries.len());
    for (name, value) in entries {
        let Value::Text(name) = name else {
            return Err(machine.error("a tensor's name is no string"));
        };
        let Value::Tensor(view) = value else {
            let what =
                format!("entry {} is no tensor; only a bare state dict is read", quoted(name));
            return Err(machine.error(what));
        };
        // A dictionary's names differ, so each has its own bytes, and all copies together have no more.
        if !names.insert(name) {
            return Err(machine.error(format!("tensor {} is there twice", quoted(name))));
        }
        let View { storage, offset, shape, strides } = machine.views[view as usize];
        let storage = machine.storages[storage as usize];
        let extents = |tuple| machine.extents(tuple).expect("checked where the view was made");
        let (shape, strides) = (extents(shape), extents(strides));
        tensors.push(TensorRef { name, storage, offset, shape, strides });
    }
    Ok((tensors, machine.at))
}

/// A pickled integer, and the bytes it takes.
pub(super) fn int(bytes: &[u8], path: &Path) -> Result<(i64, usize)> {
    let mut machine = Machine::new(bytes, path);
    match machine.run()? {
        Value::Int(value) => Ok((value, machine.at)),
        _ => Err(machine.error("an integer was expected")),
    }
}

/// The truth value under `key` of a pickled dictionary, and the bytes that takes.
pub(super) fn flag(bytes: &[u8], key: &str, path: &Path) -> Result<(bool, usize)> {
    let mut machine = Machine::new(bytes, path);
    let Value::Dict(entries) = machine.run()? else {
        return Err(machine.error("a dictionary was expected"));
    };
    let mut entries = machine.dicts[entries as usize].iter();
    match entries.find(|(name, _)| matches!(name, Value::Text(name) if *name == key)) {
        Some((_, Value::Bool(flag))) => Ok((*flag, machine.at)),
        _ => Err(machine.error(format!("{} is missing", quoted(key)))),
    }
}

/// A pickled list of strings, and the bytes it takes.
pub(super) fn texts<'a>(bytes: &'a [u8], path: &'a Path) -> Result<(Vec<&'a str>, usize)> {
    let mut machine = Machine::new(bytes, path);
    let Value::List(items) = machine.run()? else {
        return Err(machine.error("a list was expected"));
    };
    let text = |value: &Value<'a>| match value {
        Value::Text(text) => Some(*text),
        _ => None,
    };
    match machine.lists[items as usize].iter().map(text).collect() {
        Some(texts) => Ok((texts, machine.at)),
        None => Err(machine.error("a list of strings was expected")),
    }
}

pub(super) fn pickle_error(path: &Path, at: usize, problem: String) -> Error {
    Error::Pickle { path: path.to_owned(), at, problem }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    path: &'a Path,
    stack: Vec<Value<'a>>,
    /// By key: Python numbers what it memorizes from 0 or 1 on.
    memo: Vec<Option<Value<'a>>>,
    /// Where in `items` each tuple lies: first and end.
    tuples: Vec<(usize, usize)>,
    items: Vec<Value<'a>>,
    lists: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    storages: Vec<StorageRef<'a>>,
    views: Vec<View>,
    /// Bytes that the tables take.
    memory: usize,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8], path: &'a Path) -> Self {
        Self {
            bytes: &bytes[..bytes.len().min(MAX_BYTES)],
            at: 0,
            path,
            stack: Vec::new(),
            memo: Vec::new(),
            tuples: Vec::new(),
            items: Vec::new(),
            lists: Vec::new(),
            dicts: Vec::new(),
            storages: Vec::new(),
            views: Vec::new(),
            memory: 0,
        }
    }

    /// Runs until the stop opcode and returns what it leaves.
    fn run(&mut self) -> Result<Value<'a>> {
        loop {
            let [opcode] = self.array()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
            if self.stack.len() > MAX_STACK {
                return Err(self.error("its stack is deeper than that of any state dict"));
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            0x80 => self.protocol()?,                    // PROTO
            0x95 => drop(self.take(8)?),                 // FRAME: its length
            b'(' => self.stack.push(Value::Mark),        // MARK
            b'N' => self.stack.push(Value::None),        // NONE
            0x88 => self.stack.push(Value::Bool(true)),  // NEWTRUE
            0x89 => self.stack.push(Value::Bool(false)), // NEWFALSE
            b'J' | b'K' | b'M' | 0x8a | b'G' => self.number(opcode)?,
            b'X' | 0x8c | b'U' | b'T' => self.text(opcode)?,
            b')' | 0x85 | 0x86 | 0x87 | b't' => self.tuple(opcode)?,
            b']' => self.empty_list()?, // EMPTY_LIST
            b'}' => self.empty_dict()?, // EMPTY_DICT
            b'a' => self.append(1)?,    // APPEND
            b'e' => self.appends()?,    // APPENDS
            b's' => self.set_items_from(self.stack.len().saturating_sub(2))?, // SETITEM
            b'u' => self.set_items()?,  // SETITEMS
            b'q' | b'r' | 0x94 => self.put(opcode)?,
            b'h' | b'j' => self.get(opcode)?,
            b'c' => self.global()?,        // GLOBAL
            0x93 => self.stack_global()?,  // STACK_GLOBAL
            b'Q' => self.persistent_id()?, // BINPERSID
            b'R' => self.reduce()?,        // REDUCE
            b'b' => self.build()?,         // BUILD
            other => {
                return Err(self.error(format!("opcode {other:#04x} is no part of a state dict")));
            }
        }
        Ok(())
    }

    /// Makes room in a table for `count` more values of `T`, if the pickle is long enough for so many.
    fn charge<T>(&mut self, count: usize) -> Result<()> {
        self.memory = self.memory.saturating_add(count.saturating_mul(size_of::<T>()));
        if self.memory > MEMORY_BESIDE + MEMORY_PER_BYTE * self.at {
            return Err(self.error("it makes more values than a state dict of its length"));
        }
        Ok(())
    }

    fn error(&self, problem: impl Into<String>) -> Error {
        pickle_error(self.path, self.at, problem.into())
    }

    // --- The pickle's bytes ---

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let bytes = self.at.checked_add(length).and_then(|end| self.bytes.get(self.at..end));
        let bytes = bytes.ok_or_else(|| self.error("it has no end"))?;
        self.at += length;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were asked for"))
    }

    fn utf8(&self, bytes: &'a [u8]) -> Result<&'a str> {
        std::str::from_utf8(bytes).map_err(|_| self.error("a string is not UTF-8"))
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n');
        let line = self.take(length.ok_or_else(|| self.error("it has no end"))? + 1)?;
        self.utf8(&line[..line.len() - 1])
    }

    fn protocol(&mut self) -> Result<()> {
        match self.array()? {
            [version] if version <= MAX_PROTOCOL => Ok(()),
            [version] => Err(self.error(format!("pickle protocol {version} is not known"))),
        }
    }

    // --- The stack ---

    fn pop(&mut self) -> Result<Value<'a>> {
        match self.stack.pop() {
            Some(Value::Mark) | None => Err(self.error("its stack is empty")),
            Some(value) => Ok(value),
        }
    }

    fn top(&self) -> Result<Value<'a>> {
        match self.stack.last() {
            Some(Value::Mark) | None => Err(self.error("its stack is empty")),
            Some(value) => Ok(*value),
        }
    }

    /// Takes the topmost mark off, and returns where the values above it begin.
    fn mark(&mut self) -> Result<usize> {
        let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark));
        let mark = mark.ok_or_else(|| self.error("a mark is missing"))?;
        self.stack.remove(mark);
        Ok(mark)
    }

    fn index(&self, table: usize) -> u32 {
        // At most as many entries as the pickle has bytes.
        u32::try_from(table).expect("fewer than MAX_BYTES")
    }

    // --- Atoms ---

    fn number(&mut self, opcode: u8) -> Result<()> {
        let value = match opcode {
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()), // BININT
            b'K' => Value::Int(u8::from_le_bytes(self.array()?).into()),  // BININT1
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()), // BININT2
            0x8a => self.long()?,                                         // LONG1
            _ => {
                self.take(8)?; // BINFLOAT
                Value::Number
            }
        };
        self.stack.push(value);
        Ok(())
    }

    /// A little-endian integer in two's complement, of as many bytes as the first says.
    fn long(&mut self) -> Result<Value<'a>> {
        let [length] = self.array()?;
        let bytes = self.take(length.into())?;
        if bytes.len() > 8 {
            return Ok(Value::Number);
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut extended = [if negative { 0xff } else { 0 }; 8];
        extended[..bytes.len()].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(extended)))
    }

    fn text(&mut self, opcode: u8) -> Result<()> {
        let length = match opcode {
            b'X' | b'T' => u32::from_le_bytes(self.array()?), // BINUNICODE, BINSTRING
            _ => u8::from_le_bytes(self.array()?).into(),     // SHORT_BINUNICODE, SHORT_BINSTRING
        };
        let bytes = self.take(length as usize)?;
        let text = Value::Text(self.utf8(bytes)?);
        self.stack.push(text);
        Ok(())
    }

    fn put(&mut self, opcode: u8) -> Result<()> {
        let key = match opcode {
            b'q' => u8::from_le_bytes(self.array()?).into(), // BINPUT
            b'r' => u32::from_le_bytes(self.array()?),       // LONG_BINPUT
            _ => self.index(self.memo.len()),                // MEMOIZE
        };
        let value = self.top()?;
        let key = key as usize;
        if key >= self.memo.len() {
            self.charge::<Option<Value>>(key + 1 - self.memo.len())?;
            self.memo.resize(key + 1, None);
        }
        self.memo[key] = Some(value);
        Ok(())
    }

    fn get(&mut self, opcode: u8) -> Result<()> {
        let key = match opcode {
            b'h' => u8::from_le_bytes(self.array()?).into(), // BINGET
            _ => u32::from_le_bytes(self.array()?),          // LONG_BINGET
        };
        let value = self.memo.get(key as usize).copied().flatten();
        let value = value.ok_or_else(|| self.error(format!("memo {key} was never put")))?;
        self.stack.push(value);
        Ok(())
    }

    // --- Containers ---

    fn tuple(&mut self, opcode: u8) -> Result<()> {
        let length = self.stack.len();
        let first = match opcode {
            b')' => length,                                    // EMPTY_TUPLE
            b't' => self.mark()?,                              // TUPLE
            n => length.saturating_sub(usize::from(n) - 0x84), // TUPLE1, TUPLE2, TUPLE3
        };
        self.charge::<(usize, usize)>(1)?;
        self.charge::<Value>(length.saturating_sub(first))?;
        let items = self.items.len();
        self.items.extend(self.stack.drain(first..));
        self.tuples.push((items, self.items.len()));
        let tuple = self.index(self.tuples.len() - 1);
        self.stack.push(Value::Tuple(tuple));
        Ok(())
    }

    fn empty_list(&mut self) -> Result<()> {
        self.charge::<Vec<Value>>(1)?;
        self.lists.push(Vec::new());
        let list = self.index(self.lists.len() - 1);
        self.stack.push(Value::List(list));
        Ok(())
    }

    fn empty_dict(&mut self) -> Result<()> {
        self.charge::<Vec<Value>>(1)?;
        self.dicts.push(Vec::new());
        let dict = self.index(self.dicts.len() - 1);
        self.stack.push(Value::Dict(dict));
        Ok(())
    }

    fn appends(&mut self) -> Result<()> {
        let first = self.mark()?;
        self.append(self.stack.len() - first)
    }

    fn append(&mut self, count: usize) -> Result<()> {
        self.charge::<Value>(count)?;
        let first = self.stack.len().saturating_sub(count);
        let items = self.stack.split_off(first);
        match self.top()? {
            Value::List(list) => self.lists[list as usize].extend(items),
            _ => return Err(self.error("something is appended to what is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self) -> Result<()> {
        let first = self.mark()?;
        self.set_items_from(first)
    }

    fn set_items_from(&mut self, first: usize) -> Result<()> {
        self.charge::<Value>(self.stack.len() - first)?;
        let items = self.stack.split_off(first);
        let (pairs, rest) = items.as_chunks::<2>();
        match self.top()? {
            Value::Dict(dict) if rest.is_empty() => {
                self.dicts[dict as usize].extend(pairs.iter().map(|[key, value]| (*key, *value)));
                Ok(())
            }
            _ => Err(self.error("items are set in what is no dictionary")),
        }
    }

    // --- Names, and what is done with them ---

    fn global(&mut self) -> Result<()> {
        let (module, name) = (self.line()?, self.line()?);
        self.push_class(module, name)
    }

    fn stack_global(&mut self) -> Result<()> {
        match (self.pop()?, self.pop()?) {
            (Value::Text(name), Value::Text(module)) => self.push_class(module, name),
            _ => Err(self.error("a class has no name")),
        }
    }

    fn push_class(&mut self, module: &str, name: &str) -> Result<()> {
        match CLASSES.iter().find(|(known, _)| *known == (module, name)) {
            Some((_, class)) => {
                self.stack.push(Value::Class(*class));
                Ok(())
            }
            None => Err(Error::PickleClass {
                path: self.path.to_owned(),
                class: format!("{module}.{name}"),
            }),
        }
    }

    fn pop_tuple(&mut self) -> Result<&[Value<'a>]> {
        match self.pop()? {
            Value::Tuple(tuple) => Ok(self.tuple_items(tuple)),
            _ => Err(self.error("a tuple was expected")),
        }
    }

    fn tuple_items(&self, tuple: u32) -> &[Value<'a>] {
        let (first, end) = self.tuples[tuple as usize];
        &self.items[first..end]
    }

    /// `("storage", class, key, device, elements)`, with a view of the storage as sixth in the
    /// legacy container, which has been `None` since PyTorch 0.4.
    fn persistent_id(&mut self) -> Result<()> {
        let storage = match self.pop_tuple()? {
            [
                Value::Text("storage"),
                Value::Class(Class::Storage(element)),
                Value::Text(key),
                Value::Text(_),
                Value::Int(elements),
            ]
            | [
                Value::Text("storage"),
                Value::Class(Class::Storage(element)),
                Value::Text(key),
                Value::Text(_),
                Value::Int(elements),
                Value::None,
            ] => usize::try_from(*elements).ok().map(|elements| StorageRef {
                key,
                element: *element,
                elements,
            }),
            _ => None,
        };
        let storage = storage.ok_or_else(|| self.error("a persistent id is no storage"))?;
        self.charge::<StorageRef>(1)?;
        self.storages.push(storage);
        let storage = self.index(self.storages.len() - 1);
        self.stack.push(Value::Storage(storage));
        Ok(())
    }

    /// What calling the class below the arguments would make.
    fn reduce(&mut self) -> Result<()> {
        let Value::Tuple(arguments) = self.pop()? else {
            return Err(self.error("arguments are no tuple"));
        };
        let Value::Class(class) = self.pop()? else {
            return Err(self.error("something is called that has no name"));
        };
        match (class, self.tuple_items(arguments)) {
            (Class::OrderedDict, []) => self.empty_dict()?,
            // (data, requires_grad, hooks)
            (Class::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => {
                let tensor = *tensor;
                self.stack.push(tensor);
            }
            // (storage, offset, size, stride, requires_grad, hooks)
            (
                Class::RebuildTensor,
                [
                    Value::Storage(storage),
                    Value::Int(offset),
                    Value::Tuple(size),
                    Value::Tuple(stride),
                    ..,
                ],
            ) => {
                let (storage, shape, strides) = (*storage, *size, *stride);
                let offset = usize::try_from(*offset).ok();
                let extents = self.extents(shape).and(self.extents(strides));
                let Some((offset, _)) = offset.zip(extents) else {
                    return Err(self.error("a tensor has no shape that makes sense"));
                };
                self.charge::<View>(1)?;
                self.views.push(View { storage, offset, shape, strides });
                let view = self.index(self.views.len() - 1);
                self.stack.push(Value::Tensor(view));
            }
            _ => return Err(self.error(format!("{class:?} is called with other arguments"))),
        }
        Ok(())
    }

    fn extents(&self, tuple: u32) -> Option<Vec<usize>> {
        let extent = |value: &Value| match value {
            Value::Int(extent) => usize::try_from(*extent).ok(),
            _ => None,
        };
        let extents = self.tuple_items(tuple);
        // Copied for each tensor, so that one long tuple used often would take far more memory than bytes.
        if extents.len() > MAX_EXTENTS {
            return None;
        }
        extents.iter().map(extent).collect()
    }

    /// Attributes of the object below. A state dict's only one, `_metadata`, is of no use here.
    fn build(&mut self) -> Result<()> {
        match (self.pop()?, self.top()?) {
            (Value::Dict(_), Value::Dict(_)) => Ok(()),
            _ => Err(self.error("attributes are set of what is no dictionary")),
        }
    }
}
