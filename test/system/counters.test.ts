/**
 * The counters that exporters for Hyper-V Replica know, compared with what really happened: bytes that passed a wire between the two
 * hosts, pages that a resynchronization sent, log sets on record. And the limits of a resynchronization, counted and not timed.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { createServer, connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { atEnd, suiteEnd, type Ending } from '../rig/at-end.ts';
import { scramble } from '../rig/disk-formats.ts';
import type { Pair } from '../rig/pair.ts';
import { mustRun } from '../rig/program.ts';
import { assertEqual, crash, events, guestWrites, replicatingPair, resyncStatus } from './resync-rig.ts';

const MIB = 1 << 20;

/** Between the hosts: counts what passes, and cuts it. */
class Wire {
  /** From the primary. */
  sentBytes = 0;
  port = 0;
  readonly #sockets = new Set<Socket>();

  async open(t: Ending, to: () => number): Promise<void> {
    const server = createServer((near) => {
      const far = connect(to(), '127.0.0.1');
      for (const [socket, other] of [[near, far], [far, near]] as const) {
        this.#sockets.add(socket);
        socket.on('error', () => other.destroy()).on('close', () => {
          this.#sockets.delete(socket);
          other.destroy();
        });
      }
      near.on('data', (data: Buffer) => (this.sentBytes += data.length));
      near.pipe(far);
      far.pipe(near);
    });
    atEnd(t, () => {
      server.close();
      for (const socket of this.#sockets) socket.destroy();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    this.port = (server.address() as { port: number }).port;
  }
}

type Counters = Record<string, number>;

async function counters(pair: Pair, side: 'primary' | 'replica'): Promise<Counters> {
  const text = await (await fetch(`http://${pair[side].httpAddress}/metrics`)).text();
  return Object.fromEntries([...text.matchAll(/^windows_hyperv_replica_vm_(\w+)\{vm="vm1"\} (\S+)$/gm)].map(([, name, value]) => [name!, Number(value)]));
}

describe('counters', () => {
  const t = suiteEnd();
  const wire = new Wire();
  let pair: Pair;

  before(async () => {
    pair = await replicatingPair(t, { sizes: [64 * MIB, 16 * MIB], prepare: async (made) => {
      await wire.open(t, () => made.replica.peerPort);
      made.linkPort = wire.port;
    } });
  });

  interface PastCycle { outcome: string; bytes: number; latencySeconds: number }
  const cycles = async () => (await pair.primary.json<PastCycle[]>('cycles', pair.vm)).filter(({ outcome }) => outcome === 'success');

  test('network bytes: sent by the primary and received by the replica are the same, and what passed the wire but for its envelopes', async () => {
    const start = { wire: wire.sentBytes, counter: (await counters(pair, 'primary'))['network_sent_bytes_total']! };
    await guestScrambles(24);
    await pair.primary.json('sync-now', pair.vm);
    const [sent, received] = [await counters(pair, 'primary'), await counters(pair, 'replica')];
    assert.equal(received['network_received_bytes_total'], sent['network_sent_bytes_total']);
    const [counted, passed] = [sent['network_sent_bytes_total']! - start.counter, wire.sentBytes - start.wire];
    assert.ok(counted >= 24 * MIB, `${counted} bytes counted of data that cannot be compressed`);
    assert.ok(passed >= counted && passed <= counted * 1.03 + 128 * 1024, `${passed} bytes on the wire, ${counted} counted`);
    // Not the other host's.
    assert.equal(sent['network_received_bytes_total'], undefined);
    assert.equal(received['network_sent_bytes_total'], undefined);
  });

  test('sizes, latencies and their number are those of the cycles on record; compression is what it saved', async () => {
    for (const [index, mebibytes] of [1, 3, 2].entries()) {
      await guestWrites(pair, 1, [{ at: `${index}M`, length: `${mebibytes}M`, byte: 7 }]);
      await pair.primary.json('sync-now', pair.vm);
    }
    const [found, done] = [await counters(pair, 'primary'), await cycles()];
    const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
    assert.ok(done.length >= 4);
    assert.equal(found['replications_total'], done.length);
    const last = done.at(-1)!.bytes === found['last_replication_size_bytes'] ? done.at(-1)! : done[0]!;
    assert.equal(found['last_replication_size_bytes'], last.bytes);
    assert.ok(last.bytes >= 2 * MIB && last.bytes < 2.2 * MIB, `${last.bytes} bytes of 2 MiB that were written`);
    assert.equal(found['replication_latency_seconds'], last.latencySeconds);
    assert.equal(found['average_replication_size_bytes'], Math.round(mean(done.map(({ bytes }) => bytes))));
    assert.ok(Math.abs(found['average_replication_latency_seconds']! - mean(done.map(({ latencySeconds }) => latencySeconds))) < 0.001);
    const { statistics } = await pair.primary.json<{ statistics: Record<string, number> }>('health', pair.vm);
    const logs = done.reduce((sum, { bytes }) => sum + bytes, 0);
    const saved = (1 - found['network_sent_bytes_total']! / (logs + statistics['initialReplicationBytes']! + statistics['resynchronizedBytes']!)) * 100;
    assert.ok(Math.abs(found['compression_efficiency']! - saved) < 0.01, `${found['compression_efficiency']} %, not ${saved} %`);
    assert.ok(saved > 10 && saved < 30, `24 MiB did not shrink and 6 MiB did: ${saved} %`);
  });

  test('resynchronized bytes: all pages that were sent, also of a stretch that was paused; a restart keeps them', async () => {
    assert.equal((await counters(pair, 'primary'))['resynchronized_bytes_total'], 0);
    await required(48);
    // So little at once that a checkpoint lies within reach, and so slowly that it does not end by itself.
    await pair.primary.json('set', pair.vm, '--link-rate', '24M');
    await pair.primary.json('resume', pair.vm);
    await sentAtLeast(8);
    await pair.primary.json('suspend', pair.vm);
    await pair.untilState('ResynchronizeSuspended');
    // What was sent is on record as soon as the run has ended.
    let paused = await counters(pair, 'primary');
    for (let left = 100; left > 0 && paused['resynchronized_bytes_total']! < 8 * MIB; left--) paused = await counters(pair, 'primary');
    assert.ok(paused['resynchronized_bytes_total']! >= 8 * MIB, `${paused['resynchronized_bytes_total']} bytes`);
    const kept = (await resyncStatus(pair)).disks.reduce((sum, { sentBytes }) => sum + sentBytes, 0);
    await pair.primary.json('set', pair.vm, '--link-rate', '0');
    await pair.primary.json('resume', pair.vm);
    await pair.untilState('Replicating');
    const finished = (await events(pair.primary, pair)).findLast(({ id }) => id === 29244)!.data['disks'] as { blocksSent: number }[];
    const blocks = finished.reduce((sum, { blocksSent }) => sum + blocksSent, 0);
    const [sent, received] = [await counters(pair, 'primary'), await counters(pair, 'replica')];
    // The event tells of the pages of the result; those that were sent after the last checkpoint before the pause went twice.
    assert.equal(sent['resynchronized_bytes_total'], paused['resynchronized_bytes_total']! - kept + blocks * 4096);
    assert.ok(blocks * 4096 >= 48 * MIB, `${blocks} blocks`);
    assert.equal(received['resynchronized_bytes_total'], undefined, 'it is the primary that resynchronizes');
    const difference = Math.abs(sent['network_sent_bytes_total']! - received['network_received_bytes_total']!);
    assert.ok(difference <= 8 * MIB, `${difference} bytes were on their way when the run was paused`);
    await crash(pair.primary);
    assert.equal((await counters(pair, 'primary'))['resynchronized_bytes_total'], sent['resynchronized_bytes_total'], 'it survives a restart');
    await assertEqual(pair);
  });

  test('a new monitoring interval begins the cycles anew, and no total', async () => {
    const before = await counters(pair, 'primary');
    await pair.primary.json('reset-statistics', pair.vm);
    const after = await counters(pair, 'primary');
    assert.equal(after['replications_total'], 0);
    assert.equal(after['average_replication_size_bytes'], 0);
    assert.equal(after['last_replication_size_bytes'], 0);
    for (const name of ['network_sent_bytes_total', 'resynchronized_bytes_total']) assert.equal(after[name], before[name], name);
  });

  test('a limit for the link counts at once, and is kept: bytes on the wire by the clock of the server', async () => {
    await required(48);
    await pair.primary.json('set', pair.vm, '--link-rate', '64K');
    await pair.primary.json('resume', pair.vm);
    await pair.primary.until<Awaited<ReturnType<typeof resyncStatus>>>(['resync', 'status', pair.vm], ({ phase }) => phase === 'comparing');
    const [from, began] = [wire.sentBytes, performance.now()];
    await sentAtLeast(0.25);
    const [passed, seconds] = [wire.sentBytes - from, (performance.now() - began) / 1000];
    // Slower is always right. What may go at once before the limit is felt is one group of the compare.
    assert.ok(passed <= 64 * 1024 * seconds + 4 * MIB, `${passed} bytes in ${seconds} s at 64 KiB/s`);
    assert.equal((await pair.status()).state, 'Resynchronizing', 'at 64 KiB/s 48 MiB need 12 minutes');
    // At the old limit this would be minutes after the test has given up.
    await pair.primary.json('set', pair.vm, '--link-rate', '0');
    await pair.untilState('Replicating', 60_000);
    await assertEqual(pair);
  });

  test('a limit for the disks counts at once, and is kept', async () => {
    await required(1);
    await pair.primary.json('set', pair.vm, '--disk-rate', '4M');
    await pair.primary.json('resume', pair.vm);
    const began = performance.now();
    const seen = await pair.primary.until<Awaited<ReturnType<typeof resyncStatus>>>(['resync', 'status', pair.vm],
      ({ disks }) => disks[0]!.comparedBytes > 0);
    const seconds = (performance.now() - began) / 1000;
    const compared = seen.disks.reduce((sum, { comparedBytes }) => sum + comparedBytes, 0);
    // A group of 8 MiB is asked for at once.
    assert.ok(compared <= (seconds + 1) * 4 * MIB + 16 * MIB, `${compared} bytes in ${seconds} s at 4 MiB/s`);
    assert.equal((await pair.status()).state, 'Resynchronizing', 'at 4 MiB/s 80 MiB need 20 s');
    await pair.primary.json('set', pair.vm, '--disk-rate', '0');
    await pair.untilState('Replicating', 60_000);
    await assertEqual(pair);
  });

  /** The guest writes so many MiB that cannot be compressed. */
  async function guestScrambles(mebibytes: number): Promise<void> {
    const noise = join(pair.folder, 'noise');
    await writeFile(noise, randomBytes(mebibytes * MIB));
    await mustRun('qemu-io', ['-f', 'raw', (await pair.uris())[0]!, '-c', `write -s ${noise} 0 ${mebibytes}M`, '-c', 'flush']);
  }

  async function required(mebibytes: number): Promise<void> {
    await pair.primary.json('vm', 'stop', pair.vm);
    await scramble(pair.disks[0]!, mebibytes * MIB);
    await pair.primary.json('vm', 'attach', pair.vm);
    await pair.untilState('WaitingForStartResynchronize');
  }

  const sentAtLeast = (mebibytes: number) => pair.primary.until<Awaited<ReturnType<typeof resyncStatus>>>(['resync', 'status', pair.vm],
    ({ disks }) => disks.reduce((sum, { sentBytes }) => sum + sentBytes, 0) >= mebibytes * MIB);
});
