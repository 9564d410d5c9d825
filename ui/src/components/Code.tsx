/** Names of code: the tree and version of a bundle, and the commands that publish a bundle and build a runtime. */

import { Code, Text } from "@chakra-ui/react";
import { shellWord, shortDigest } from "../format";

/** The beginning of a tree's digest; the whole digest is its tooltip. */
export function TreeName({ digest }: { digest: string }) {
  return (
    <Text as="span" fontFamily="mono" fontSize="xs" title={digest}>
      {shortDigest(digest)}
    </Text>
  );
}

/** Longer versions are hashes of commits, of which the beginning is enough. */
const MAX_VERSION = 20;

/** A bundle's own name for a state; a long one is cut, and whole in its tooltip. */
export function VersionName({ version }: { version: string }) {
  return (
    <Text as="span" title={version} whiteSpace="nowrap">
      {version.length > MAX_VERSION ? `${version.slice(0, 12)}…` : version}
    </Text>
  );
}

export function PublishCommand({ bundle }: { bundle: string }) {
  return <Code>{`airflow remote publish ${shellWord(bundle)}`}</Code>;
}

export function AddReleaseCommand() {
  return <Code>{"airflow remote releases add"}</Code>;
}

export function BuildCommand({ runtime }: { runtime: string }) {
  return <Code>{`airflow remote runtimes build ${shellWord(runtime)}`}</Code>;
}
