import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Files } from '../model/ports.ts';
import { nearestFolder } from './nearest-folder.ts';

type Stat = Awaited<ReturnType<Files['stat']>>;
const files = { stat: async (path: string) => {
  if (path === '/secret/deep') throw Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES' });
  const kind = ({ '/': 'folder', '/media': 'folder', '/media/usb': 'folder', '/media/note': 'file' } as Record<string, string>)[path];
  return kind === undefined ? null : { kind } as Stat;
} };

test('the closest folder of the path that is there; a file is none', async () => {
  for (const [path, there] of [['/media/usb', '/media/usb'], ['/media/usb/a/b', '/media/usb'], ['/media/note', '/media'], ['/none/at/all', '/'], ['/', '/']]) {
    assert.equal(await nearestFolder(files, path!), there, path);
  }
});

test('what cannot be looked at is a failure, not something that is not there', async () => {
  await assert.rejects(nearestFolder(files, '/secret/deep'), { code: 'EACCES' });
});
