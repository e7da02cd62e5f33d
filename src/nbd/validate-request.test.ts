import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NBD_CMD, NBD_CMD_FLAG } from '../disk/nbd/protocol.ts';
import { refusal } from './validate-request.ts';

const GIB = 2 ** 30;
const MAX = 32 * 2 ** 20;
const { READ, WRITE, FLUSH, TRIM, WRITE_ZEROES, BLOCK_STATUS, CACHE, RESIZE } = NBD_CMD;
const { FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN } = NBD_CMD_FLAG;

type Row = [name: string, command: number, flags: number, offset: number, length: number, errno: string | undefined];

function table(
  title: string, rows: Row[], target: { readOnly?: boolean; canTrim?: boolean; block?: number } = {}, structured = true,
): void {
  const { readOnly = false, canTrim = true, block = 1 } = target;
  const session = { structuredReplies: structured, blockStatus: structured };
  for (const [name, command, flags, offset, length, errno] of rows) {
    test(`${title}: ${name}`, () => {
      const disk = { size: GIB, readOnly, canTrim, minimumBlockSize: block };
      assert.equal(refusal({ command, flags, offset, length }, disk, session, MAX)?.errno, errno);
    });
  }
}

table('a writable export', [
  ['the last byte may be written', WRITE, 0, GIB - 1, 1, undefined],
  ['one byte past the end is "no space" on write', WRITE, 0, GIB, 1, 'ENOSPC'],
  ['one byte past the end is "no space" on zeroing', WRITE_ZEROES, 0, GIB - 1, 2, 'ENOSPC'],
  ['one byte past the end is "no space" on trim', TRIM, 0, GIB - 1, 2, 'ENOSPC'],
  ['one byte past the end is "invalid" on read', READ, 0, GIB, 1, 'EINVAL'],
  ['one byte past the end is "invalid" on block status', BLOCK_STATUS, 0, GIB, 1, 'EINVAL'],
  ['an offset of 2^64 - 1 does not wrap', WRITE, 0, 2 ** 64, 1, 'ENOSPC'],
  ['a read of the payload limit is served', READ, 0, 0, MAX, undefined],
  ['a read over the payload limit is refused', READ, 0, 0, MAX + 1, 'EINVAL'],
  ['a write over the payload limit is refused', WRITE, 0, 0, MAX + 1, 'EINVAL'],
  ['zeroing has no payload and no such limit', WRITE_ZEROES, 0, 0, GIB, undefined],
  ['an empty read is refused', READ, 0, 0, 0, 'EINVAL'],
  ['an empty write is refused', WRITE, 0, 0, 0, 'EINVAL'],
  ['an empty block status is refused', BLOCK_STATUS, 0, 0, 0, 'EINVAL'],
  ['FUA is accepted on writes', WRITE, FUA, 0, 1, undefined],
  ['FUA is accepted where it says nothing', READ, FUA, 0, 1, undefined],
  ['NO_HOLE is accepted on zeroing', WRITE_ZEROES, FUA | NO_HOLE, 0, 1, undefined],
  ['NO_HOLE is refused elsewhere', WRITE, NO_HOLE, 0, 1, 'EINVAL'],
  ['FAST_ZERO is refused: it is not advertised', WRITE_ZEROES, FAST_ZERO, 0, 1, 'EINVAL'],
  ['DF is accepted on reads', READ, DF, 0, 1, undefined],
  ['REQ_ONE is accepted on block status', BLOCK_STATUS, REQ_ONE, 0, 1, undefined],
  ['REQ_ONE is refused elsewhere', READ, REQ_ONE, 0, 1, 'EINVAL'],
  ['PAYLOAD_LEN is refused: there are no extended headers', WRITE, PAYLOAD_LEN, 0, 1, 'EINVAL'],
  ['an unknown flag is refused', READ, 1 << 15, 0, 1, 'EINVAL'],
  ['a flush is accepted', FLUSH, 0, 0, 0, undefined],
  ['a flush with a range is refused', FLUSH, 0, 0, 1, 'EINVAL'],
  ['a cache hint inside is accepted', CACHE, 0, 0, GIB, undefined],
  ['a cache hint past the end is refused', CACHE, 0, 1, GIB, 'EINVAL'],
  ['a resize is refused', RESIZE, 0, 0, 1, 'EINVAL'],
  ['an unknown command is refused', 77, 0, 0, 1, 'EINVAL'],
]);

table('a read-only export', [
  ['reads are served', READ, 0, 0, 1, undefined],
  ['flushes are accepted', FLUSH, 0, 0, 0, undefined],
  ['a write is "not permitted"', WRITE, 0, 0, 1, 'EPERM'],
  ['even an empty trim is "not permitted"', TRIM, 0, 0, 0, 'EPERM'],
  ['zeroing is "not permitted"', WRITE_ZEROES, 0, 0, 1, 'EPERM'],
  ['a trim is "not permitted" where nothing can be trimmed either', TRIM, 0, 0, 1, 'EPERM'],
], { readOnly: true, canTrim: false });

table('an export that cannot trim', [
  ['a trim is refused', TRIM, 0, 0, 1, 'EINVAL'],
  ['zeroing is accepted', WRITE_ZEROES, 0, 0, 1, undefined],
], { canTrim: false });

table('an export with blocks of 512 bytes', [
  ['whole blocks are accepted', READ, 0, 512, 1024, undefined],
  ['a crooked offset is refused', READ, 0, 1, 512, 'EINVAL'],
  ['a crooked length is refused', WRITE, 0, 512, 513, 'EINVAL'],
], { block: 512 });

table('a session without structured replies', [
  ['reads are served', READ, 0, 0, 1, undefined],
  ['DF is refused', READ, DF, 0, 1, 'EINVAL'],
  ['block status is refused', BLOCK_STATUS, 0, 0, 1, 'EINVAL'],
], {}, false);
