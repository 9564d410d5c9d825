/** Enrolment tokens, without their secrets. */

import { Button } from "@chakra-ui/react";
import { act, path, read } from "../api";
import { Grid, type Column } from "../components/Grid";
import { ListOrEmpty } from "../components/ListOrEmpty";
import { Tags } from "../components/Tags";
import { RelativeTime } from "../components/Time";
import { pairs } from "../format";
import type { Listed, Token } from "../types";
import { useLive } from "../useLive";
import { words } from "../words";

export function Tokens() {
  const live = useLive("tokens", (signal) => read<Listed<Token>>("enrolment-tokens", {}, signal), { subjects: ["audit"] });
  const { fields, actions, notes } = words();
  const columns: Column<Token>[] = [
    { name: "pattern", title: fields.pattern, cell: (token) => token.name_pattern },
    { name: "queues", title: fields.queues, cell: (token) => <Tags names={token.queues} /> },
    { name: "labels", title: fields.labels, from: "lg", cell: (token) => <Tags names={pairs(token.labels)} /> },
    { name: "uses", title: fields.uses, cell: (token) => token.uses_left },
    { name: "by", title: fields.actor, from: "md", cell: (token) => token.created_by },
    { name: "expires", title: fields.expires, cell: (token) => <RelativeTime time={token.revoked_at ?? token.expires_at} /> },
    {
      name: "revoke",
      title: "",
      cell: (token) =>
        token.revoked_at === null ? (
          <Button
            colorPalette="red"
            onClick={() => void act("DELETE", path("enrolment-tokens", token.id)).finally(live.refresh)}
            size="xs"
            variant="outline"
          >
            {actions.revokeToken}
          </Button>
        ) : null,
    },
  ];
  return (
    <ListOrEmpty empty={notes.noTokens} problem={live.problem} rows={live.value?.items}>
      {(rows) => <Grid columns={columns} keyOf={(token) => token.id} label={words().tabs.tokens} rows={rows} />}
    </ListOrEmpty>
  );
}
