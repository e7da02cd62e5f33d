import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isNbdUri, parseNbdUri } from './uri.ts';

const understood: [string, ReturnType<typeof parseNbdUri>][] = [
  ['nbd://host', { connect: { host: 'host', port: 10809 }, exportName: '' }],
  ['nbd://host:1234/disk', { connect: { host: 'host', port: 1234 }, exportName: 'disk' }],
  ['nbd://[::1]:1234/', { connect: { host: '::1', port: 1234 }, exportName: '' }],
  ['nbd://host/a%20b/c', { connect: { host: 'host', port: 10809 }, exportName: 'a b/c' }],
  ['nbd://host//slash', { connect: { host: 'host', port: 10809 }, exportName: '/slash' }],
  ['nbd+unix:///?socket=/run/x.sock', { connect: { path: '/run/x.sock' }, exportName: '' }],
  ['nbd+unix:///vm?socket=/run/a%20b', { connect: { path: '/run/a b' }, exportName: 'vm' }],
];
for (const [uri, address] of understood) {
  test(`${uri} names a server and an export`, () => {
    assert.ok(isNbdUri(uri));
    assert.deepEqual(parseNbdUri(uri), address);
  });
}

const refused: [string, RegExp][] = [
  ['nbds://host/disk', /TLS/], ['nbds+unix:///?socket=/x', /TLS/], ['nbd+vsock://2/', /unknown scheme/],
  ['nbd:unix:/path', /no host/],
  ['nbd+unix:///name', /no socket/], ['nbd+unix:///name?socket=', /no socket/], ['nbd:///name', /no host/],
  ['nbd://host:99999/', /valid/], ['nbd://host/%zz', /%/],
];
for (const [uri, message] of refused) {
  test(`${uri} is refused with a remedy`, () => {
    assert.ok(isNbdUri(uri));
    assert.throws(() => parseNbdUri(uri), { name: 'UnderstudyError', code: 'DISK_NOT_SUPPORTED', message, remedy: /.{10}/ });
  });
}

test('paths and other URIs are no NBD URIs', () => {
  for (const location of ['/nbd:/x', 'nbd', 'nbdfile', 'rbd:pool/image', 'https://nbd/']) assert.equal(isNbdUri(location), false);
});
