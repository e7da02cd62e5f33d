import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import {
  missing, run, startNbdkit, startQemuNbd, temporaryFolder, type NbdServerProgram,
} from '../../../test/conformance/disk-programs.ts';
import { collect, pattern, readBack, virtualDiskSuite, type SuiteOptions } from '../../../test/conformance/virtual-disk.suite.ts';
import type { Clock } from '../../model/ports.ts';
import { openNbdDisk, type NbdDisk } from './nbd-disk.ts';
import {
  decodeOptionHeader, decodeRequest, encodeGreeting, encodeInfo, encodeOptionError, encodeOptionReply, encodeSimpleReply,
  isMalformed, NBD_CMD, NBD_FLAG, NBD_OPT, NBD_OPTION_BYTES, NBD_REP, NBD_REQUEST_BYTES,
} from './protocol.ts';

const MIB = 1 << 20;
const WRITER = { readOnly: false };

type Start = (folder: string) => Promise<NbdServerProgram>;

function suiteOver(name: string, start: Start, options: SuiteOptions): void {
  virtualDiskSuite(name, async () => {
    const folder = await temporaryFolder();
    const server = await start(folder.path);
    const open = (): Promise<NbdDisk> => openNbdDisk(server.uri, WRITER);
    const cleanup = async (): Promise<void> => {
      await server.stop();
      await folder.remove();
    };
    return { disk: await open(), reopen: open, cleanup };
  }, options);
}

const qemu = (format: string): Start => async (folder) => {
  const image = join(folder, 'image');
  await run('qemu-img', ['create', '-q', '-f', format, image, '2M']);
  return startQemuNbd(image, format, folder);
};
const nbdkit = (...args: string[]): Start => (folder) => startNbdkit(folder, [...args]);

const skipQemu = missing('qemu-nbd', 'qemu-img');
const skipNbdkit = missing('nbdkit');
suiteOver('qemu-nbd with raw', qemu('raw'), { skip: skipQemu, runs: 10 });
suiteOver('qemu-nbd with qcow2', qemu('qcow2'), { skip: skipQemu, runs: 10 });
suiteOver('nbdkit memory', nbdkit('memory', '2M'), { skip: skipNbdkit, runs: 10 });
const strict = (size: string, ...blockSizes: string[]): Start =>
  nbdkit('--filter=blocksize-policy', 'memory', size, 'blocksize-error-policy=error', ...blockSizes);
suiteOver('a server with blocks of 4 KiB to 64 KiB',
  strict('2M', 'blocksize-minimum=4096', 'blocksize-preferred=4096', 'blocksize-maximum=64k'), { skip: skipNbdkit, runs: 10 });
suiteOver('a server that can do nothing but read and write',
  nbdkit('--no-sr', '--filter=nozero', '--filter=noextents', 'memory', '2M'),
  { skip: skipNbdkit, zeroMakesHoles: false, runs: 5 });

describe('NBD disk over real servers', { skip: skipNbdkit || skipQemu }, () => {
  type Work = (uri: string, folder: string, stop: NbdServerProgram['stop']) => Promise<void>;
  async function served(start: Start, work: Work): Promise<void> {
    const folder = await temporaryFolder();
    const server = await start(folder.path);
    try {
      await work(server.uri, folder.path, server.stop);
    } finally {
      await server.stop();
      await folder.remove();
    }
  }

  test('an image of QEMU is read as QEMU reads it, and the other way round', () => served(qemu('qcow2'), async (uri, folder) => {
    const disk = await openNbdDisk(uri, WRITER);
    await disk.write(pattern(MIB, 1), 12_345);
    await disk.zero(100_000, 50_000);
    await disk.flush();
    const ours = await readBack(disk, 0, disk.virtualSize);
    await disk.close();
    await run('qemu-img', ['convert', '-O', 'raw', uri, join(folder, 'copy')]);
    const { stdout } = await run('sha256sum', [join(folder, 'copy')]);
    assert.equal(stdout.slice(0, 64), createHash('sha256').update(ours).digest('hex'));
  }));

  test('a big operation is split and arrives whole', () =>
    served(strict('16M', 'blocksize-maximum=64k'), async (uri) => {
      const disk = await openNbdDisk(uri, WRITER);
      const data = pattern(10 * MIB, 3);
      await disk.write(data, 777);
      assert.ok((await readBack(disk, 777, data.length)).equals(data));
      await disk.zero(MIB + 1, 8 * MIB);
      data.fill(0, MIB + 1 - 777, 9 * MIB + 1 - 777);
      assert.ok((await readBack(disk, 777, data.length)).equals(data));
      await disk.close();
    }));

  test('holes of a disk beyond 4 GiB are found', () => served(nbdkit('memory', '1T'), async (uri) => {
    const disk = await openNbdDisk(uri, WRITER);
    const at = 700 * 2 ** 30;
    await disk.write(pattern(4096, 1), at);
    const data = (await collect(disk.extents(0, disk.virtualSize))).filter(({ kind }) => kind === 'data');
    assert.equal(data.length, 1);
    assert.ok(data[0]!.offset <= at && data[0]!.offset + data[0]!.length >= at + 4096 && data[0]!.length < MIB);
    await disk.close();
  }));

  test('a read-only export is refused for writing and opens for reading', () =>
    served(nbdkit('-r', 'memory', '1M'), async (uri) => {
      await assert.rejects(openNbdDisk(uri, WRITER), { kind: 'state', code: 'DISK_READ_ONLY' });
      const disk = await openNbdDisk(uri, { readOnly: true });
      await assert.rejects(disk.write(Buffer.alloc(1), 0), { code: 'EPERM' });
      await disk.close();
    }));

  test('an error of the server keeps its number, and the connection lives on', () =>
    served(nbdkit('--filter=error', 'memory', '1M', 'error-pwrite=ENOSPC', 'error-pread=EIO', 'error-rate=100%'), async (uri) => {
      const disk = await openNbdDisk(uri, WRITER);
      await assert.rejects(disk.write(Buffer.alloc(512), 0), { code: 'ENOSPC' });
      await assert.rejects(disk.read(Buffer.alloc(512), 0), { code: 'EIO' });
      await assert.rejects(disk.write(Buffer.alloc(512), 0), { code: 'ENOSPC' });
      await disk.close();
    }));

  test('an export that does not exist is DISK_NOT_FOUND', () => served(qemu('raw'), async (uri) => {
    await assert.rejects(openNbdDisk(uri.replace('///', '///absent'), WRITER), { kind: 'usage', code: 'DISK_NOT_FOUND' });
  }));

  test('a size that is no whole number of sectors is refused', () => served(nbdkit('memory', '1000'), async (uri) => {
    await assert.rejects(openNbdDisk(uri, WRITER), { code: 'DISK_SIZE_NOT_SECTORS' });
  }));

  test('a server that is killed is an EIO for what is under way and for all that comes later', () =>
    served(nbdkit('--filter=delay', 'memory', '1M', 'rdelay=100'), async (uri, _folder, stop) => {
      const disk = await openNbdDisk(uri, WRITER);
      const reads = [0, 512].map((offset) => assert.rejects(disk.read(Buffer.alloc(512), offset), { code: 'EIO' }));
      await disk.write(Buffer.alloc(512), 0); // answered, so the reads before it have arrived at the server
      await stop('SIGKILL');
      await Promise.all(reads);
      await assert.rejects(disk.flush(), { code: 'EIO' });
      await disk.close();
    }));
});

/** An honest server of a 1 MiB disk for the handshake; what comes after is up to the test. */
async function scriptedServer(
  serve: (socket: net.Socket, request: { command: number; cookie: bigint }) => void,
): Promise<net.Server> {
  const flags = NBD_FLAG.HAS_FLAGS | NBD_FLAG.SEND_FLUSH;
  const server = net.createServer((socket) => {
    let bytes = Buffer.alloc(0);
    let inTransmission = false;
    socket.on('error', () => {}); // the client hangs up when it is done
    socket.write(encodeGreeting(3));
    socket.on('data', (more) => {
      bytes = Buffer.concat([bytes, more as Buffer]);
      if (bytes.readUInt32BE(0) === 3) bytes = bytes.subarray(4);
      while (!inTransmission && bytes.length >= NBD_OPTION_BYTES) {
        const header = decodeOptionHeader(bytes);
        assert.ok(!isMalformed(header));
        bytes = bytes.subarray(NBD_OPTION_BYTES + header.length);
        inTransmission = header.option === NBD_OPT.GO;
        if (!inTransmission) socket.write(encodeOptionError(header.option, NBD_REP.ERR_UNSUP, ''));
        else {
          const info = encodeInfo({ info: 'export', size: MIB, flags });
          socket.write(Buffer.concat([encodeOptionReply(7, NBD_REP.INFO, info), encodeOptionReply(7, NBD_REP.ACK)]));
        }
      }
      while (inTransmission && bytes.length >= NBD_REQUEST_BYTES) {
        const request = decodeRequest(bytes);
        assert.ok(!isMalformed(request));
        bytes = bytes.subarray(NBD_REQUEST_BYTES + (request.command === NBD_CMD.WRITE ? request.length : 0));
        serve(socket, request);
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

const uriOf = (server: net.Server): string => `nbd://127.0.0.1:${(server.address() as net.AddressInfo).port}`;

/** Sleeps end when the test says so. */
function manualClock(): Clock & { advance(ms: number): void; sleepers(): number } {
  let now = 0;
  const sleepers: { until: number; resolve: () => void }[] = [];
  return {
    now: () => now,
    monotonic: () => now,
    sleep: (ms, signal) => new Promise((resolve, reject) => {
      const sleeper = { until: now + ms, resolve };
      sleepers.push(sleeper);
      signal?.addEventListener('abort', () => {
        sleepers.splice(sleepers.indexOf(sleeper), 1);
        reject(signal.reason as Error);
      }, { once: true });
    }),
    advance(ms) {
      now += ms;
      for (const sleeper of sleepers.filter(({ until }) => until <= now)) {
        sleepers.splice(sleepers.indexOf(sleeper), 1);
        sleeper.resolve();
      }
    },
    sleepers: () => sleepers.length,
  };
}

describe('NBD disk over scripted servers', () => {
  test('a server that stops answering is given up after the request time-out', async () => {
    const clock = manualClock();
    const asked = Promise.withResolvers<void>();
    const server = await scriptedServer((socket, { command, cookie }) => {
      if (command === NBD_CMD.FLUSH) socket.write(encodeSimpleReply({ error: 0, cookie }));
      else asked.resolve();
    });
    const disk = await openNbdDisk(uriOf(server), { ...WRITER, clock, requestTimeoutMs: 1000 });
    assert.equal(clock.sleepers(), 0, 'the connect time-out is off');
    await disk.flush();
    clock.advance(999);
    const read = assert.rejects(disk.read(Buffer.alloc(10), 0), { code: 'EIO', message: /no answer.*1000 ms/ });
    await asked.promise;
    clock.advance(999);
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(clock.sleepers(), 1, 'not given up before its time, though the flush before took some of it');
    clock.advance(1);
    await read;
    await assert.rejects(disk.flush(), { code: 'EIO' });
    assert.equal(clock.sleepers(), 0);
    await disk.close();
    server.close();
  });

  test('a server that never greets is given up after the connect time-out', async () => {
    const clock = manualClock();
    const server = net.createServer((socket) => void socket.on('error', () => {}).once('close', () => server.close()));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const opening = openNbdDisk(uriOf(server), { ...WRITER, clock, connectTimeoutMs: 500 });
    await once(server, 'connection');
    clock.advance(500);
    await assert.rejects(opening, { kind: 'io', code: 'NBD_UNREACHABLE', message: /500 ms/ });
    await once(server, 'close');
  });

  test('a server that breaks the protocol is an EIO with the reason', async () => {
    const server = await scriptedServer((socket) => socket.write('this is not a reply header'));
    const disk = await openNbdDisk(uriOf(server), WRITER);
    const into = Buffer.alloc(10, '?');
    await assert.rejects(disk.read(into, 0), { code: 'EIO', message: /magic/ });
    assert.equal(into.toString(), '??????????');
    await disk.close();
    server.close();
  });

  test('requests beyond the bound wait, and all of them are answered', async () => {
    let most = 0;
    const waiting: (() => void)[] = [];
    const server = await scriptedServer((socket, { command, cookie }) => {
      if (command === NBD_CMD.DISC) return;
      waiting.push(() => socket.write(encodeSimpleReply({ error: 0, cookie })));
      most = Math.max(most, waiting.length);
      // Answered when nothing more arrives, last one first.
      setImmediate(() => setImmediate(() => waiting.pop()?.()));
    });
    const disk = await openNbdDisk(uriOf(server), WRITER);
    await Promise.all(Array.from({ length: 500 }, (_, index) => disk.write(Buffer.alloc(100), index * 100)));
    assert.ok(most > 1 && most <= 32, `${most} at once`);
    await disk.close();
    await assert.rejects(disk.flush(), { code: 'EBADF' });
    server.close();
  });

  test('close waits for what is under way', async () => {
    const server = await scriptedServer((socket, { command, cookie }) => {
      if (command !== NBD_CMD.DISC) setImmediate(() => socket.write(encodeSimpleReply({ error: 0, cookie })));
    });
    const disk = await openNbdDisk(uriOf(server), WRITER);
    const ended: string[] = [];
    await Promise.all([
      disk.write(Buffer.alloc(10), 0).then(() => ended.push('write')),
      disk.flush().then(() => ended.push('flush')),
      disk.close().then(() => ended.push('close')),
    ]);
    assert.equal(ended.at(-1), 'close');
    assert.equal(ended.length, 3);
    server.close();
  });

  test('nobody there is NBD_UNREACHABLE', async () => {
    const server = await scriptedServer(() => {});
    const uri = uriOf(server);
    server.close();
    await once(server, 'close');
    await assert.rejects(openNbdDisk(uri, WRITER), { kind: 'io', code: 'NBD_UNREACHABLE', message: /ECONNREFUSED/ });
    await assert.rejects(openNbdDisk('nbd+unix:///?socket=/does/not/exist', WRITER), { code: 'NBD_UNREACHABLE' });
  });
});
