import assert from 'node:assert/strict';
import { createCipheriv } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { KEY_BYTES, TAG_BYTES, type TagInto, drawKey, leafTagger, nativeTagger, portableTagger } from './leaf-tags.ts';

const noNative = nativeTagger(drawKey()) === null ? 'koffi or OpenSSL does not load here' : false;

function tagOf(tagInto: TagInto, data: Uint8Array): string {
  const tag = Buffer.alloc(TAG_BYTES + 2, 0xee);
  tagInto(data, tag, 1);
  assert.deepEqual([tag[0], tag[TAG_BYTES + 1]], [0xee, 0xee], 'wrote beside its place');
  return tag.subarray(1, 1 + TAG_BYTES).toString('hex');
}

/** Multiplication in GF(2^128) as section 6.3 of NIST SP 800-38D has it: the first bit is the highest. */
function times(x: bigint, y: bigint): bigint {
  let [z, v] = [0n, y];
  for (let bit = 127n; bit >= 0n; bit--) {
    if ((x >> bit) & 1n) z ^= v;
    v = v & 1n ? (v >> 1n) ^ (0xe1n << 120n) : v >> 1n;
  }
  return z;
}

/** GMAC by the book (sections 6.4 and 7.1), with nothing of it from OpenSSL but single blocks of AES. */
function byTheBook(key: Uint8Array, data: Uint8Array): string {
  const block = (bytes: Buffer): bigint => {
    const aes = createCipheriv('aes-256-ecb', key, null);
    return BigInt(`0x${aes.update(bytes).toString('hex')}`);
  };
  const h = block(Buffer.alloc(16));
  const padded = Buffer.concat([data, Buffer.alloc((16 - (data.length % 16)) % 16), Buffer.alloc(16)]);
  padded.writeBigUInt64BE(BigInt(data.length) * 8n, padded.length - 16);
  let y = 0n;
  for (let at = 0; at < padded.length; at += 16) y = times(y ^ BigInt(`0x${padded.subarray(at, at + 16).toString('hex')}`), h);
  const counter = Buffer.alloc(16);
  counter[15] = 1;
  return (y ^ block(counter)).toString(16).padStart(32, '0');
}

for (const [name, make] of [['Node’s cipher', portableTagger], ['OpenSSL itself', nativeTagger]] as const) {
  const skip = make === nativeTagger && noNative;

  test(`${name} gives the tag of test case 13 of the GCM specification`, { skip }, () => {
    assert.equal(tagOf(make(Buffer.alloc(KEY_BYTES))!, Buffer.alloc(0)), '530f8afbc74536b9a963b4f1c4cb738b');
  });

  test(`${name} gives the tags of SP 800-38D, of any length, at any place in memory`, { skip }, () => {
    const key = drawKey();
    const tagInto = make(key)!;
    fc.assert(fc.property(fc.uint8Array({ maxLength: 700 }), fc.nat(40), (bytes, before) => {
      const memory = new Uint8Array(before + bytes.length + 3).fill(7);
      memory.set(bytes, before);
      assert.equal(tagOf(tagInto, memory.subarray(before, before + bytes.length)), byTheBook(key, bytes));
    }), { numRuns: 60 });
  });

  test(`${name}: whole leaves, several keys in turn, and memory that is given away between two calls`, { skip }, () => {
    const keys = [drawKey(), drawKey()];
    const tags = keys.map((key) => make(key)!);
    let leaf = new Uint8Array(65536).map((_, at) => at * 31);
    for (let turn = 0; turn < 6; turn++) {
      const which = turn % 2;
      const right = Buffer.alloc(TAG_BYTES);
      portableTagger(keys[which]!)(leaf, right, 0);
      assert.equal(tagOf(tags[which]!, leaf), right.toString('hex'));
      const lent = structuredClone(leaf.buffer, { transfer: [leaf.buffer] });
      assert.equal(tagOf(tags[which]!, leaf), tagOf(portableTagger(keys[which]!), new Uint8Array(0)), 'memory that is gone has no bytes');
      leaf = new Uint8Array(lent);
      leaf[turn]! ^= 1;
    }
  });
}

test('another key gives another tag, and one bit does', () => {
  const [one, other] = [leafTagger(Buffer.alloc(KEY_BYTES, 1)), leafTagger(Buffer.alloc(KEY_BYTES, 2))];
  const page = Buffer.alloc(4096, 'page');
  const tags = new Set([tagOf(one, page), tagOf(other, page)]);
  for (let bit = 0; bit < 8; bit++) {
    page[4095]! ^= 1 << bit;
    tags.add(tagOf(one, page));
    page[4095]! ^= 1 << bit;
  }
  assert.equal(tags.size, 10);
});
