// Fails if a module has another relaxed instruction than the two whose results we know: the compiler makes a relaxed
// minimum of `if a < b { a } else { b }` in vectors that it finds itself, and a NaN is lost.
//
// It reads bytes, not instructions: a constant may look like one. Then look at the function it names.

import { readFileSync } from 'node:fs';
import { argv, exit } from 'node:process';

const KNOWN = { 0x105: 'f32x4.relaxed_madd', 0x112: 'i16x8.relaxed_dot_i8x16_i7x16_s' };
const OTHERS = {
  0x100: 'i8x16.relaxed_swizzle', 0x106: 'f32x4.relaxed_nmadd', 0x107: 'f64x2.relaxed_madd', 0x108: 'f64x2.relaxed_nmadd',
  0x10d: 'f32x4.relaxed_min', 0x10e: 'f32x4.relaxed_max', 0x10f: 'f64x2.relaxed_min', 0x110: 'f64x2.relaxed_max',
  0x111: 'i16x8.relaxed_q15mulr_s', 0x113: 'i32x4.relaxed_dot_i8x16_i7x16_add_s',
  0x101: 'i32x4.relaxed_trunc_f32x4_s', 0x102: 'i32x4.relaxed_trunc_f32x4_u', 0x103: 'i32x4.relaxed_trunc_f64x2_s_zero',
  0x104: 'i32x4.relaxed_trunc_f64x2_u_zero', 0x109: 'i8x16.relaxed_laneselect', 0x10a: 'i16x8.relaxed_laneselect',
  0x10b: 'i32x4.relaxed_laneselect', 0x10c: 'i64x2.relaxed_laneselect',
};

const bytes = readFileSync(argv[2]);

/** Where the code section begins and ends. */
function code() {
  let at = 8;
  while (at < bytes.length) {
    const id = bytes[at];
    let [size, shift] = [0, 0];
    do {
      at += 1;
      size |= (bytes[at] & 127) << shift;
      shift += 7;
    } while (bytes[at] & 128);
    at += 1;
    if (id === 10) return bytes.subarray(at, at + size);
    at += size;
  }
  throw new Error('no code');
}

const section = code();
const count = (opcode) => {
  const pattern = Buffer.from([0xfd, opcode & 127 | 128, opcode >> 7]);
  let [n, at] = [0, -1];
  while ((at = section.indexOf(pattern, at + 1)) >= 0) n += 1;
  return n;
};
let failed = false;
for (const [opcode, name] of Object.entries(KNOWN)) {
  console.log(`${name}: ${count(Number(opcode))}`);
  failed ||= count(Number(opcode)) === 0;
}
for (const [opcode, name] of Object.entries(OTHERS)) {
  const n = count(Number(opcode));
  if (n > 0) console.log(`${name}: ${n}, which must not be there`);
  failed ||= n > 0;
}
exit(failed ? 1 : 0);
