/** Who has signed the trees that a page shows. Central verifies no signature: workers do. */

import { Badge, HStack, Text } from "@chakra-ui/react";
import type { SignedStatement } from "../types";
import { words } from "../words";
import { TreeName } from "./Code";
import { Grid, type Column } from "./Grid";
import { EmptyNotice } from "./Notices";
import { Section } from "./Section";
import { RelativeTime } from "./Time";

/** Digits of a key's id, as in a worker's refusals. */
const KEY_DIGITS = 16;

export function Signed({ statements }: { statements: readonly SignedStatement[] }) {
  const { notes, signed } = words();
  return (
    <Section title={signed}>
      {statements.length ? (
        <Grid columns={columns()} keyOf={(one) => `${one.tree} ${one.name} ${one.key_ids.join(" ")}`} label={signed} rows={statements} />
      ) : (
        <EmptyNotice>{notes.unsigned}</EmptyNotice>
      )}
    </Section>
  );
}

function columns(): Column<SignedStatement>[] {
  const { fields } = words();
  return [
    { name: "tree", title: fields.tree, cell: ({ tree }) => <TreeName digest={tree} /> },
    { name: "name", title: fields.name, cell: ({ name }) => name },
    { name: "serial", title: fields.serial, from: "md", cell: ({ serial }) => serial || "" },
    { name: "keys", title: fields.keys, cell: (statement) => <KeyNames ids={statement.key_ids} /> },
    { name: "signed", title: fields.signed, from: "sm", cell: (statement) => <RelativeTime time={statement.signed_at} /> },
    { name: "expires", title: fields.expires, cell: (statement) => <Expiry statement={statement} /> },
  ];
}

function KeyNames({ ids }: { ids: readonly string[] }) {
  return (
    <>
      {ids.map((id) => (
        <Text fontFamily="mono" fontSize="xs" key={id} title={id}>
          {id.slice(0, KEY_DIGITS)}
        </Text>
      ))}
    </>
  );
}

function Expiry({ statement: { expires_at, has_expired } }: { statement: SignedStatement }) {
  const { notes } = words();
  if (expires_at === null) return <Text as="span">{notes.noExpiry}</Text>;
  return (
    <HStack gap="2">
      <RelativeTime time={expires_at} />
      {has_expired ? <Badge colorPalette="failed">{notes.expired}</Badge> : null}
    </HStack>
  );
}
