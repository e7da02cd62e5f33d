/** Equality of disks. `assert.deepEqual` of a mebibyte that differs takes gigabytes of memory to say so. */
import assert from 'node:assert/strict';

export function assertSameBytes(found: Uint8Array | undefined, expected: Uint8Array | undefined, message = 'the bytes differ'): void {
  assert.ok(found !== undefined && expected !== undefined, `${message}: one is missing`);
  assert.equal(found.length, expected.length, `${message}: lengths`);
  if (Buffer.compare(found, expected) === 0) return;
  const at = found.findIndex((byte, index) => byte !== expected[index]);
  assert.fail(`${message}: first at ${at}, ${found[at]} for ${expected[at]}`);
}
