import assert from 'node:assert/strict';
import { test } from 'node:test';
import { libvirtLines, qemuLines } from './hypervisor-lines.ts';

const uri = (index: number) => `nbd+unix:///web1%2F${index}?socket=/run/u.sock`;
const disks = [{ uri: uri(0), logicalSectorSize: 512 }, { uri: uri(1), logicalSectorSize: 4096 }, { uri: uri(2) }];

test('QEMU is told of sectors that are not 512 bytes, and of no others', () => {
  const devices = qemuLines(disks).split('\n').filter((line) => line.startsWith('-device')).map((line) => line.replace(/ \\$/, ''));
  assert.deepEqual(devices, [
    '-device virtio-blk-pci,drive=disk0',
    '-device virtio-blk-pci,drive=disk1,logical_block_size=4096,physical_block_size=4096',
    '-device virtio-blk-pci,drive=disk2',
  ]);
});

test('libvirt is told of sectors that are not 512 bytes, and of no others', () => {
  const elements = libvirtLines(disks).split('</disk>\n');
  assert.match(elements[1]!, /<target dev='vdb' bus='virtio'\/>\n {2}<blockio logical_block_size='4096' physical_block_size='4096'\/>/);
  for (const index of [0, 2]) assert.doesNotMatch(elements[index]!, /blockio/);
});
