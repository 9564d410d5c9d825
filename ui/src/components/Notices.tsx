/** What a page shows in place of rows: an error, a spinner, a text that there are no rows. */

import { Box, HStack, Spinner, Text } from "@chakra-ui/react";
import type { ReactNode } from "react";
import type { Problem } from "../api";
import { words } from "../words";
import { ERROR_TEXT } from "../colors";

/** Show why reading or changing something failed. Rows that were read before stay beside it. */
export function ErrorNotice({ problem }: { problem: Problem | undefined }) {
  if (!problem) return null;
  return (
    <Box bg="bg.error" borderColor="border.error" borderRadius="md" borderWidth="1px" p="2" role="alert">
      <Text color={ERROR_TEXT}>{problem.message}</Text>
    </Box>
  );
}

export function Loading() {
  return (
    <HStack p="4" role="status">
      <Spinner size="sm" />
      <Text>{words().notes.loading}</Text>
    </HStack>
  );
}

export function EmptyNotice({ children }: { children: ReactNode }) {
  return (
    <Box borderRadius="md" borderStyle="dashed" borderWidth="1px" p="6" textAlign="center">
      <Text color="fg.muted">{children}</Text>
    </Box>
  );
}
