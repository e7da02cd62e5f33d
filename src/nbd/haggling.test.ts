import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  NBD_CLIENT_FLAG, NBD_FLAG, NBD_INFO, NBD_OPT, NBD_OPTION_REPLY_BYTES, NBD_REP, decodeInfo, decodeOptionReplyHeader,
  decodeServerEntry, encodeInfoRequest, encodeMetaRequest, isMalformed,
} from '../disk/nbd/protocol.ts';
import { MemoryDisk } from '../disk/memory-disk.ts';
import { diskExport } from './export.ts';
import { Haggling, type HaggleStep } from './haggling.ts';

const MIB = 2 ** 20;
const plain = diskExport('vm/disk0', new MemoryDisk(MIB), { description: 'the first disk' });
const readOnly = diskExport('ro', new MemoryDisk(MIB), { readOnly: true });

function haggling(flags = NBD_CLIENT_FLAG.FIXED_NEWSTYLE | NBD_CLIENT_FLAG.NO_ZEROES): Haggling {
  const exports = [plain, readOnly];
  const find = (name: string) => exports.find((each) => each.name === name);
  const catalogue = { find, list: () => exports.map(({ name }) => name) };
  const result = new Haggling(catalogue, { options: 10, payloadBytes: 32 * MIB });
  assert.equal(result.clientFlags(flags), null);
  return result;
}

function repliesIn(bytes: Buffer): { type: number; data: Buffer }[] {
  const found: { type: number; data: Buffer }[] = [];
  for (let at = 0; at < bytes.length;) {
    const header = decodeOptionReplyHeader(bytes, at);
    assert.ok(!isMalformed(header));
    at += NBD_OPTION_REPLY_BYTES;
    found.push({ type: header.type, data: bytes.subarray(at, (at += header.length)) });
  }
  return found;
}

function replies(step: HaggleStep): { type: number; data: Buffer }[] {
  return repliesIn(step.kind === 'attach' ? step.attach.accepted : Buffer.concat(step.replies));
}

const types = (step: HaggleStep) => replies(step).map((reply) => reply.type);
const go = (name: string, infos: number[] = []) => encodeInfoRequest({ name, infos });
const meta = (name: string, ...queries: string[]) => encodeMetaRequest({ name, queries });

test('GO names size, flags and block sizes, asked for or not, then attaches', () => {
  const step = haggling().option(NBD_OPT.GO, go('vm/disk0'));
  assert.equal(step.kind, 'attach');
  const [size, blocks, ack] = replies(step);
  const flags = NBD_FLAG.HAS_FLAGS | NBD_FLAG.SEND_FLUSH | NBD_FLAG.SEND_FUA | NBD_FLAG.SEND_TRIM | NBD_FLAG.SEND_WRITE_ZEROES
    | NBD_FLAG.CAN_MULTI_CONN;
  assert.deepEqual(decodeInfo(size!.data), { info: 'export', size: MIB, flags });
  assert.deepEqual(decodeInfo(blocks!.data), { info: 'block-size', minimum: 1, preferred: 4096, maximum: 32 * MIB });
  assert.equal(ack!.type, NBD_REP.ACK);
});

test('GO sends name and description when asked for', () => {
  const infos = replies(haggling().option(NBD_OPT.GO, go('vm/disk0', [NBD_INFO.NAME, NBD_INFO.DESCRIPTION, 99]))).slice(0, -1);
  assert.deepEqual(infos.map((reply) => decodeInfo(reply.data)).slice(1, 3),
    [{ info: 'name', text: 'vm/disk0' }, { info: 'description', text: 'the first disk' }]);
});

test('INFO says the same and stays in the handshake', () => {
  const step = haggling().option(NBD_OPT.INFO, go('vm/disk0'));
  assert.equal(step.kind, 'reply');
  assert.deepEqual(types(step), [NBD_REP.INFO, NBD_REP.INFO, NBD_REP.ACK]);
});

test('a read-only export says so and offers neither trim nor zeroing', () => {
  const info = decodeInfo(replies(haggling().option(NBD_OPT.INFO, go('ro')))[0]!.data);
  assert.ok('flags' in info);
  assert.equal(info.flags & (NBD_FLAG.READ_ONLY | NBD_FLAG.SEND_TRIM | NBD_FLAG.SEND_WRITE_ZEROES), NBD_FLAG.READ_ONLY);
});

test('DF is offered once structured replies are agreed', () => {
  const session = haggling();
  assert.deepEqual(types(session.option(NBD_OPT.STRUCTURED_REPLY, Buffer.alloc(0))), [NBD_REP.ACK]);
  const info = decodeInfo(replies(session.option(NBD_OPT.INFO, go('ro')))[0]!.data);
  assert.ok('flags' in info && (info.flags & NBD_FLAG.SEND_DF) !== 0);
});

test('LIST names every export with its description', () => {
  const listed = replies(haggling().option(NBD_OPT.LIST, Buffer.alloc(0)));
  assert.deepEqual(listed.slice(0, -1).map((reply) => decodeServerEntry(reply.data)),
    [{ name: 'vm/disk0', description: 'the first disk' }, { name: 'ro', description: '' }]);
  assert.equal(listed.at(-1)!.type, NBD_REP.ACK);
});

test('an unknown export is an error that leaves the handshake open', () => {
  for (const option of [NBD_OPT.GO, NBD_OPT.INFO]) {
    assert.deepEqual(types(haggling().option(option, go('nobody'))), [NBD_REP.ERR_UNKNOWN]);
  }
});

test('EXPORT_NAME attaches, with or without 124 zeroes', () => {
  const lengths = [0, NBD_CLIENT_FLAG.NO_ZEROES].map((zeroes) => {
    const step = haggling(NBD_CLIENT_FLAG.FIXED_NEWSTYLE | zeroes).option(NBD_OPT.EXPORT_NAME, Buffer.from('ro'));
    assert.equal(step.kind, 'attach');
    return step.kind === 'attach' && step.attach.refused === null ? step.attach.accepted.length : 0;
  });
  assert.deepEqual(lengths, [134, 10]);
});

test('EXPORT_NAME with an unknown name closes: it has no error reply', () => {
  const step = haggling().option(NBD_OPT.EXPORT_NAME, Buffer.from('nobody'));
  assert.deepEqual(step, { kind: 'close', replies: [], reason: 'no export is named "nobody"' });
});

test('base:allocation is selected for one export, and only by its full name', () => {
  const rows: [string, Buffer, boolean][] = [
    ['selected', meta('ro', 'base:allocation'), true],
    ['among others', meta('ro', 'qemu:dirty-bitmap:b', 'base:allocation'), true],
    ['a namespace alone selects nothing', meta('ro', 'base:'), false],
    ['another context', meta('ro', 'x-nobody:knows'), false],
    ['no query', meta('ro'), false],
    ['for another export', meta('vm/disk0', 'base:allocation'), false],
  ];
  for (const [name, request, selected] of rows) {
    const session = haggling();
    session.option(NBD_OPT.STRUCTURED_REPLY, Buffer.alloc(0));
    assert.equal(types(session.option(NBD_OPT.SET_META_CONTEXT, request)).at(-1), NBD_REP.ACK, name);
    const step = session.option(NBD_OPT.GO, go('ro'));
    assert.equal(step.kind === 'attach' && step.attach.session.blockStatus, selected, name);
  }
});

test('a later selection replaces an earlier one, even when it fails', () => {
  const session = haggling();
  session.option(NBD_OPT.STRUCTURED_REPLY, Buffer.alloc(0));
  session.option(NBD_OPT.SET_META_CONTEXT, meta('ro', 'base:allocation'));
  assert.deepEqual(types(session.option(NBD_OPT.SET_META_CONTEXT, meta('nobody', 'base:allocation'))), [NBD_REP.ERR_UNKNOWN]);
  const step = session.option(NBD_OPT.GO, go('ro'));
  assert.equal(step.kind === 'attach' && step.attach.session.blockStatus, false);
});

test('contexts are listed by namespace, by name, or all', () => {
  const rows: [Buffer, number][] = [
    [meta('ro'), 1], [meta('ro', 'base:'), 1], [meta('ro', 'base:allocation'), 1], [meta('ro', 'qemu:'), 0],
  ];
  for (const [request, count] of rows) {
    const session = haggling();
    session.option(NBD_OPT.STRUCTURED_REPLY, Buffer.alloc(0));
    assert.equal(replies(session.option(NBD_OPT.LIST_META_CONTEXT, request)).length, count + 1);
  }
});

const malformed: [name: string, option: number, data: Buffer, type: number][] = [
  ['STARTTLS is not supported', NBD_OPT.STARTTLS, Buffer.alloc(0), NBD_REP.ERR_UNSUP],
  ['extended headers are not supported', NBD_OPT.EXTENDED_HEADERS, Buffer.alloc(0), NBD_REP.ERR_UNSUP],
  ['an unknown option is not supported', 4711, Buffer.from('whatever'), NBD_REP.ERR_UNSUP],
  ['LIST with data is invalid', NBD_OPT.LIST, Buffer.alloc(1), NBD_REP.ERR_INVALID],
  ['STRUCTURED_REPLY with data is invalid', NBD_OPT.STRUCTURED_REPLY, Buffer.alloc(1), NBD_REP.ERR_INVALID],
  ['GO without a name is invalid', NBD_OPT.GO, Buffer.alloc(3), NBD_REP.ERR_INVALID],
  ['GO with a name that runs past the end is invalid', NBD_OPT.GO, Buffer.from([0, 0, 0, 9, 0x61]), NBD_REP.ERR_INVALID],
  ['GO with a name of 5000 bytes is invalid', NBD_OPT.GO, go('x'.repeat(5000)), NBD_REP.ERR_INVALID],
  ['GO with bytes to spare is invalid', NBD_OPT.GO, Buffer.concat([go('ro'), Buffer.alloc(1)]), NBD_REP.ERR_INVALID],
  ['contexts before structured replies are invalid', NBD_OPT.SET_META_CONTEXT, meta('ro', 'base:allocation'),
    NBD_REP.ERR_INVALID],
];
for (const [name, option, data, type] of malformed) {
  test(`${name}, and the handshake goes on`, () => {
    const session = haggling();
    assert.deepEqual(types(session.option(option, data)), [type]);
    assert.equal(session.option(NBD_OPT.GO, go('ro')).kind, 'attach');
  });
}

test('a lying count of context queries is invalid', () => {
  const session = haggling();
  session.option(NBD_OPT.STRUCTURED_REPLY, Buffer.alloc(0));
  const data = meta('ro', 'base:allocation');
  data.writeUInt32BE(0xffff_ffff, 4 + 'ro'.length);
  assert.deepEqual(types(session.option(NBD_OPT.SET_META_CONTEXT, data)), [NBD_REP.ERR_INVALID]);
});

test('ABORT is acknowledged, then the connection closes', () => {
  const step = haggling().option(NBD_OPT.ABORT, Buffer.alloc(0));
  assert.equal(step.kind, 'close');
  assert.deepEqual(types(step), [NBD_REP.ACK]);
});

test('unknown client flags close the connection', () => {
  const session = new Haggling({ find: () => undefined, list: () => [] }, { options: 10, payloadBytes: 1 });
  assert.match(session.clientFlags(0x8000_0001) ?? '', /unknown client flags 0x80000000/);
});

test('a client without fixed newstyle may only name its export', () => {
  assert.equal(haggling(0).option(NBD_OPT.LIST, Buffer.alloc(0)).kind, 'close');
  assert.equal(haggling(0).option(NBD_OPT.EXPORT_NAME, Buffer.from('ro')).kind, 'attach');
});

test('endless options close the connection', () => {
  const session = haggling();
  for (let i = 0; i < 10; i += 1) assert.equal(session.option(NBD_OPT.LIST, Buffer.alloc(0)).kind, 'reply');
  assert.deepEqual(session.option(NBD_OPT.LIST, Buffer.alloc(0)), { kind: 'close', replies: [], reason: 'more than 10 options' });
});

test('with TLS demanded, nothing is answered before it, and the rest after it only to whom it may', () => {
  const catalogue = { find: () => plain, list: () => [plain.name] };
  const required = () => {
    const result = new Haggling(catalogue, { options: 10, payloadBytes: 32 * MIB }, 'required');
    assert.equal(result.clientFlags(NBD_CLIENT_FLAG.FIXED_NEWSTYLE), null);
    return result;
  };
  const one = required();
  for (const option of [NBD_OPT.LIST, NBD_OPT.GO, NBD_OPT.STRUCTURED_REPLY, 99]) {
    assert.deepEqual(types(one.option(option, go('vm/disk0'))), [NBD_REP.ERR_TLS_REQD]);
  }
  assert.equal(one.option(NBD_OPT.EXPORT_NAME, Buffer.from('vm/disk0')).kind, 'close');
  assert.equal(one.option(NBD_OPT.STARTTLS, Buffer.alloc(0)).kind, 'start-tls');
  one.secured(null);
  assert.deepEqual(types(one.option(NBD_OPT.STARTTLS, Buffer.alloc(0))), [NBD_REP.ERR_INVALID]);
  assert.equal(one.option(NBD_OPT.GO, go('vm/disk0')).kind, 'attach');
  const refused = required();
  refused.secured('not you');
  assert.deepEqual(types(refused.option(NBD_OPT.LIST, Buffer.alloc(0))), [NBD_REP.ERR_POLICY]);
  assert.equal(refused.option(NBD_OPT.EXPORT_NAME, Buffer.from('vm/disk0')).kind, 'close');
  assert.equal(refused.option(NBD_OPT.ABORT, Buffer.alloc(0)).kind, 'close');
  assert.deepEqual(types(haggling().option(NBD_OPT.STARTTLS, Buffer.alloc(0))), [NBD_REP.ERR_UNSUP], 'without TLS there is none');
});
